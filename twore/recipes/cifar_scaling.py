"""The CV study of the report: PreResNet on CIFAR-10, over prune ratio x training epoch, depth and amount of data.

    python -m twore.recipes.cifar_scaling                     # quick: digits, minutes on a laptop
    python -m twore.recipes.cifar_scaling --preset cpu --data DIR
    python -m twore.recipes.cifar_scaling --preset paper --data DIR --device cuda

Presets
    quick  PreResNet-8 on scikit-learn's digits (embedded), 3 dense seeds; both regimes in a few minutes
    cpu    PreResNet-8 on 40 % of CIFAR-10: the report's schedule at 0.15 of its length; about 90 minutes on 2 cores
    atlas  digits over 12 settings x 3 dense seeds: depth, width, amount of data, batch, schedule, fine-tuning; half an
           hour on 2 cores; what predictors are compared on
    paper  the report, section 6: depths 20, 38, 56, 110 and 1, 5, 10, 100 % of the data; 7 trainings, 3,024 cells
"""

from __future__ import annotations

import sys
from dataclasses import replace

from twore.pruning.spec import Pruning
from twore.recipes.command import Recipe, main
from twore.study.specs import Study
from twore.tasks import CifarTask
from twore.training import ICML_FINETUNE, REPORT_DENSE, REPORT_FINETUNE, Numerics, Training

CONVOLUTIONS = Pruning(kinds=("conv",))  # report section 6.1: "we only prune weights in convolution layers"


def quick() -> Study:
    """Digits: batch 16, so that 40 epochs are enough updates (2,920) for late checkpoints to differ."""
    return Study(
        name="cifar_scaling quick",
        task=CifarTask(dataset="digits", depth=8, holdout=0.1, crop_padding=1, flip=False, shifts=True),
        dense=Training(epochs=40, batch_size=16, drops=(20, 30)),
        finetune=Training(epochs=8, batch_size=64, drops=(4, 6)),
        pruning=CONVOLUTIONS,
        numerics=Numerics(precision="float32"),  # at 8x8 pixels bf16 gains little, and float32 is the same everywhere
        checkpoints=(4, 8, 12, 16, 20, 24, 32, 40),
        extra_checkpoints=(0,),
        ratios=(0.3, 0.6, 0.8, 0.9, 0.94, 0.97),
        dense_seeds=(0, 1, 2),
        finetune_seeds=(0, 1),
    )


def cpu() -> Study:
    """CIFAR-10: all epochs of the report times 0.15, so drops, checkpoints and fine-tuning keep their proportions."""
    return Study(
        name="cifar_scaling cpu",
        task=CifarTask(depth=8, data_percent=40.0, holdout=0.1),
        dense=replace(REPORT_DENSE, epochs=24, drops=(12, 18)),
        finetune=replace(REPORT_FINETUNE, epochs=6),
        pruning=CONVOLUTIONS,
        checkpoints=(3, 6, 9, 12, 15, 18, 21, 24),
        extra_checkpoints=(0, 13),
        ratios=(0.2, 0.6, 0.8, 0.9, 0.94, 0.97),
    )


def atlas() -> Study:
    """Many cheap trajectories around quick: one thing changed at a time, then the smaller ones with the report's 1e-3.

    24 dense runs and 36 (setting, seed) pairs: settings that differ in fine-tuning alone share their dense runs.
    """
    gentle = {"finetune.lr": 1e-3, "finetune.schedule": "constant"}
    no_drops = {"dense.schedule": "constant", "dense.lr": 0.05}
    adam = {
        "optimizer": "adam",
        "schedule": "inverse_sqrt",
        "lr": 0.042,
        "warmup": 200,
        "weight_decay": 0.0,
    }  # peak 3e-3
    inverse_sqrt = {f"{run}.{name}": value for run in ("dense", "finetune") for name, value in adam.items()}
    base = quick()
    return replace(
        base,
        name="cifar_scaling atlas",
        dense=replace(base.dense, ema=1.0),
        settings=(
            {},
            {"task.depth": 14},
            {"task.width": 8},
            {"task.data_percent": 50.0},
            {"task.data_percent": 25.0},
            {"dense.batch_size": 64},
            no_drops,
            inverse_sqrt,
            gentle,
            {"task.depth": 14, **gentle},
            {"task.width": 8, **gentle},
            {"task.data_percent": 50.0, **gentle},
        ),
    )


def paper() -> Study:
    """The report as it is; nothing held out."""
    depths = [{"task.depth": depth} for depth in (20, 38, 56, 110)]
    amounts = [{"task.data_percent": percent} for percent in (1.0, 5.0, 10.0)]  # 100 % is the first of the depths
    return Study(
        name="cifar_scaling paper",
        task=CifarTask(),
        dense=REPORT_DENSE,
        finetune=REPORT_FINETUNE,
        pruning=CONVOLUTIONS,
        extra_checkpoints=(0, 79, 81, 85, 119, 121, 125),
        settings=(*depths, *amounts),
    )


RECIPE = Recipe(
    name="cifar_scaling",
    task=CifarTask,
    presets={"quick": quick, "cpu": cpu, "atlas": atlas, "paper": paper},
    about=__doc__,
    finetune_settings={"report": REPORT_FINETUNE, "icml": ICML_FINETUNE},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
