"""twore: when should I stop training before I prune?

Studies that train, prune at many checkpoints, fine-tune and score; exact masks; the metrics that are said to predict
the answer; figures and a report. Start with `python -m twore.recipes.cifar_scaling` or the README.
"""

__version__ = "0.1.0"
