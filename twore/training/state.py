"""Weights and resumable state on disk: safetensors only, nothing that could run code is ever loaded.

A checkpoint is the model's state_dict. A run state is that plus the optimiser's tensors and the epochs done so far;
random streams need no state, since they are derived from names (twore.seeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from twore.files import CorruptFileError, read_tensors, write_tensors

OPTIMIZER = "optimizer"  # the role of the optimiser's tensors in a run state


class Part(Protocol):
    """Something with tensors: a module, or masks that are held."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> Any:
        """Take them back."""


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any] | None = None) -> None:
    """Write the model's state_dict, whole or not at all."""
    write_tensors(path, model.state_dict(), about)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Read weights into `model`, in place and strictly by name; returns what was said about them."""
    tensors, about = read_tensors(path)
    model.load_state_dict(tensors)
    return about


def save_run(path: Path, parts: Mapping[str, Part], optimizer: Optimizer, about: Mapping[str, Any]) -> None:
    """Write all that a run needs to go on exactly where it is, at an epoch's end: its parts by role, and optimiser."""
    tensors = {f"{role}/{name}": t for role, part in parts.items() for name, t in part.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:
                tensors[f"{OPTIMIZER}/{index}/{slot}"] = torch.as_tensor(value)
    write_tensors(path, tensors, about)


def load_run(path: Path, parts: Mapping[str, Part], optimizer: Optimizer) -> dict[str, Any]:
    """Put a saved run back into its parts and optimiser; returns what was said about it.

    CorruptFileError when the file is broken, or does not hold these parts.
    """
    tensors, about = read_tensors(path)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        role, _, rest = name.partition("/")
        found.setdefault(role, {})[rest] = tensor
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in found.pop(OPTIMIZER, {}).items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = tensor
    if found.keys() != parts.keys():
        raise CorruptFileError(f"{path} holds {', '.join(sorted(found))}, not {', '.join(sorted(parts))}")
    for role, part in parts.items():
        part.load_state_dict(found[role])
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for slot, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:  # fused updates walk memory, so the
                values[slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)  # layouts must agree
    return about
