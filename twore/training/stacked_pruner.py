"""Masks of a stack: each model's own, held all at once after every update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from twore.pruning import MaskHandle, hold_masks
from twore.training.pruner import Pruner
from twore.training.stacking import Stack


class StackedPruner:
    """The pruners of a stack's models as one holder. Each prunes its own model, which is a view of the stack."""

    def __init__(self, stack: Stack, pruners: Sequence[Pruner]) -> None:
        if len(pruners) != stack.width:
            raise ValueError(f"a stack of {stack.width} models needs as many pruners: got {len(pruners)}")
        self._module, self._pruners = stack.module, list(pruners)
        self._handle: MaskHandle | None = None

    def install(self, optimizer: Optimizer) -> None:
        """Hold the masks after every update of `optimizer`."""
        self._handle = hold_masks(self._module, self._masks(), optimizer)

    def advance(self, progress: float) -> None:
        """Prune further where a schedule asks for it."""
        before = [pruner.masks for pruner in self._pruners]
        for pruner in self._pruners:
            pruner.advance(progress)
        changed = any(pruner.masks is not masks for pruner, masks in zip(self._pruners, before))
        if changed and self._handle is not None:
            self._handle.update(self._masks())

    def zero_gradients(self) -> None:
        """Zero the gradients of pruned weights."""
        if self._handle is not None:
            self._handle.zero_gradients()

    def state_dict(self) -> dict[str, Tensor]:
        """Each pruner's state, its names numbered."""
        states = [pruner.state_dict() for pruner in self._pruners]
        return {f"{k}:{name}": tensor for k, state in enumerate(states) for name, tensor in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> None:
        """Take them back; the weights come from the stack's own state."""
        for k, pruner in enumerate(self._pruners):
            mark = f"{k}:"
            pruner.load_state_dict({n.removeprefix(mark): t for n, t in state_dict.items() if n.startswith(mark)})

    def remove(self) -> None:
        """Stop holding."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _masks(self) -> dict[str, Tensor]:
        """(K, ...) each."""
        return {n: torch.stack([p.masks[n] for p in self._pruners]) for n in self._pruners[0].masks}
