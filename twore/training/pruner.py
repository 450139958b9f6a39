"""Pruning during a run: the masks of a cell, made before fine-tuning or along it, held after every update.

One-shot (the report): the full ratio at once. Iterative and gradual schedules prune further while fine-tuning goes on;
since pruned weights are exactly zero they stay the smallest, so later masks are subsets of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from twore.pruning import MaskHandle, apply_masks, hold_masks, make_masks, prunable_weights, ratio_at
from twore.pruning.spec import Pruning

RATIO = "/ratio"  # beside the masks in a run state; no parameter has a slash in its name
STEPS = 100  # how finely a gradual schedule moves over its ramp; our choice


class Pruner:
    """Prunes `model` to `ratio` as `spec` says, and holds the zeros. `masks` are the current ones, True = kept.

    seed: of random scores only.
    """

    def __init__(self, model: nn.Module, spec: Pruning, ratio: float, *, seed: int = 0) -> None:
        self.model, self.spec, self.ratio, self.seed = model, spec, ratio, seed
        include, exclude = spec.include or None, spec.exclude or None
        self.names = list(prunable_weights(model, spec.kinds, include=include, exclude=exclude))
        self.masks: dict[str, Tensor] = {}
        self._now = -1.0
        self._handle: MaskHandle | None = None
        self._prune_to(self._ratio(0.0))

    def install(self, optimizer: Optimizer) -> None:
        """Hold the masks after every update of `optimizer`."""
        self._handle = hold_masks(self.model, self.masks, optimizer)

    def advance(self, progress: float) -> None:
        """Prune further when the schedule asks for it."""
        if self.spec.schedule != "one_shot":
            self._prune_to(self._ratio(progress))

    def zero_gradients(self) -> None:
        """Zero the gradients of pruned weights."""
        if self._handle is not None:
            self._handle.zero_gradients()

    def state_dict(self) -> dict[str, Tensor]:
        """The masks, and the ratio that they reached."""
        return {**self.masks, RATIO: torch.tensor(self._now, dtype=torch.float64)}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> None:
        """Take masks and ratio back; the weights come from the model's own state."""
        device = next(self.model.parameters()).device
        self.masks = {name: mask.to(device) for name, mask in state_dict.items() if name != RATIO}
        self._now = float(state_dict[RATIO])

    def remove(self) -> None:
        """Stop holding."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _ratio(self, progress: float) -> float:
        ramp = min(1.0, progress / self.spec.ramp)
        if self.spec.schedule == "gradual":
            ramp = int(ramp * STEPS + 1e-9) / STEPS
        return ratio_at(self.spec.schedule, self.ratio, ramp, rounds=self.spec.rounds)

    def _prune_to(self, ratio: float) -> None:
        if ratio <= self._now:
            return
        parameters = dict(self.model.named_parameters())
        weights = {name: parameters[name].detach() for name in self.names}
        self.masks = make_masks(weights, ratio, score=self.spec.score, allocation=self.spec.allocation, seed=self.seed)
        self._now = ratio
        apply_masks(self.model, self.masks)
        if self._handle is not None:
            self._handle.update(self.masks)
