"""THE training loop and what it needs: schedules, numerics, checkpoints, pruning along the way."""

from twore.training.loop import DivergedError, Epoch, Run, StackEpoch, diverged, make_average, make_optimizer, train
from twore.training.numerics import Numerics
from twore.training.pruner import Pruner
from twore.training.spec import (
    ICML_FINETUNE,
    REPORT_DENSE,
    REPORT_FINETUNE,
    WMT14_DENSE,
    WMT14_FINETUNE,
    Training,
)
from twore.training.stacked_pruner import StackedPruner
from twore.training.stacking import Stack, StackedData

__all__ = [
    "ICML_FINETUNE",
    "REPORT_DENSE",
    "REPORT_FINETUNE",
    "WMT14_DENSE",
    "WMT14_FINETUNE",
    "DivergedError",
    "Epoch",
    "Numerics",
    "Pruner",
    "Run",
    "Stack",
    "StackEpoch",
    "StackedData",
    "StackedPruner",
    "Training",
    "diverged",
    "make_average",
    "make_optimizer",
    "train",
]
