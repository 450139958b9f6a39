"""Masks and metrics inside other people's trainers: so far the Hugging Face Trainer.

    TworeCallback(ratio=0.9, exclude="lm_head").bind(trainer)      # then trainer.train() as ever

Needs transformers with its Trainer, hence accelerate: pip install 'twore[hf]'.
"""

from twore.integrations.trainer import MASKS_FILE, TworeCallback

__all__ = ["MASKS_FILE", "TworeCallback"]
