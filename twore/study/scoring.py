"""Scores of a model on a task's data, and what it makes of the task's samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from twore.tasks.base import TaskData
from twore.training import DivergedError, Numerics


@torch.inference_mode()
def score_model(model: nn.Module, data: TaskData, numerics: Numerics) -> dict[str, Any]:
    """All scores: of the test split by their own names, of any other split with its name as prefix: valid_score.

    DivergedError when a score or an output is not a finite number: a network that says NaN is still right by chance.
    """
    model.eval()
    scores: dict[str, Any] = {"valid_score": math.nan}
    with numerics.autocast():
        if not bool(data.outputs(model, next(iter(data.plain()))).isfinite().all()):  # one batch: NaN spreads to all
            raise DivergedError("the trained network's outputs are not finite: try a lower lr, or clip")
        for split in data.splits:
            for name, value in data.evaluate(model, split).items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise DivergedError(f"the {name} on the {split} split is {value}: try a lower lr, or clip")
                scores[name if split == "test" else f"{split}_{name}"] = value
    return scores


@torch.inference_mode()
def samples_of(model: nn.Module, data: TaskData, numerics: Numerics) -> dict[str, Any]:
    """What the model makes of the task's sample inputs, {"samples": texts}; empty for a task without any."""
    if not hasattr(data, "samples"):
        return {}
    model.eval()
    with numerics.autocast():
        return {"samples": data.samples(model)}
