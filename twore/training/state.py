"""Weights and resumable state on disk: safetensors only, nothing that could run code is ever loaded.

A checkpoint is the model's state_dict. A run state is that plus the optimiser's tensors and the epochs done so far;
random streams need no state, since they are derived from names (twore.seeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from twore.files import read_tensors, write_tensors


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any] | None = None) -> None:
    """Write the model's state_dict, whole or not at all."""
    write_tensors(path, model.state_dict(), about)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Read weights into `model`, in place and strictly by name; returns what was said about them."""
    tensors, about = read_tensors(path)
    model.load_state_dict(tensors)
    return about


def save_run(path: Path, model: nn.Module, optimizer: Optimizer, about: Mapping[str, Any]) -> None:
    """Write all that a run needs to go on exactly where it is, at an epoch's end."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:
                tensors[f"optimizer.{index}.{slot}"] = torch.as_tensor(value)
    write_tensors(path, tensors, about)


def load_run(path: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put a saved run back into `model` and `optimizer`; returns what was said about it."""
    tensors, about = read_tensors(path)
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return about
