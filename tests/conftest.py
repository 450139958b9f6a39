"""Shared by all tests: one thread (results depend on it), and a small study of the toy task."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy import CPU, ToyTask

from twore.study import Study
from twore.training import Training


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def toy_study() -> Study:
    """2 dense seeds x 2 checkpoints x 2 ratios x 2 fine-tune seeds = 16 cells."""
    dense = Training(epochs=4, batch_size=16, lr=0.05, drops=(2,))
    return Study(
        task=ToyTask(),
        name="toy",
        dense=dense,
        finetune=replace(dense, epochs=2, schedule="constant", drops=()),
        numerics=CPU,
        checkpoints=(2, 4),
        extra_checkpoints=(0,),
        ratios=(0.3, 0.8),
        dense_seeds=(0, 1),
        finetune_seeds=(0, 1),
        permutations=2,
    )
