"""Which of these checkpoints should I prune? For people's own checkpoints; on the command line: `twore advise`.

    advice = advise("runs/my-model", ratios=(0.5, 0.9))    # a folder of checkpoints: weights alone
    print(advice.to_text())

Three levels of evidence, each of which says what it costs: weights alone; a few batches (`probe`), on which every
pruned checkpoint is scored; a pilot (`pilot`), which fine-tunes a few of them. The answer at a level is that of the
scoreboard's predictor of the level (twore.advise.levels), with a confidence calibrated on finished studies; where the
evidence is not worth an answer it abstains. Nothing is written beside the checkpoints, and no code of theirs is run.
"""

from twore.advise.advice import Advice
from twore.advise.api import RATIOS, WeightOptions, advise
from twore.advise.batches import Functions, TaskProbe
from twore.advise.deciding import Verdict
from twore.advise.levels import LEVELS
from twore.advise.pilot import Pilot

__all__ = ["LEVELS", "RATIOS", "Advice", "Functions", "Pilot", "TaskProbe", "Verdict", "WeightOptions", "advise"]
