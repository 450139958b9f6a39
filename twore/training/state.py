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

OPTIMIZER = "optimizer"  # the role of the optimiser's tensors in a run state


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any] | None = None) -> None:
    """Write the model's state_dict, whole or not at all."""
    write_tensors(path, model.state_dict(), about)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Read weights into `model`, in place and strictly by name; returns what was said about them."""
    tensors, about = read_tensors(path)
    model.load_state_dict(tensors)
    return about


def save_run(path: Path, modules: Mapping[str, nn.Module], optimizer: Optimizer, about: Mapping[str, Any]) -> None:
    """Write all that a run needs to go on exactly where it is, at an epoch's end: its modules by name, and optimiser."""
    tensors = {f"{role}/{name}": t for role, module in modules.items() for name, t in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:
                tensors[f"{OPTIMIZER}/{index}/{slot}"] = torch.as_tensor(value)
    write_tensors(path, tensors, about)


def load_run(path: Path, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> dict[str, Any]:
    """Put a saved run back into its modules and optimiser; returns what was said about it."""
    tensors, about = read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        role, _, rest = name.partition("/")
        parts.setdefault(role, {})[rest] = tensor
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts.pop(OPTIMIZER, {}).items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = tensor
    for role, module in modules.items():
        module.load_state_dict(parts[role])
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return about
