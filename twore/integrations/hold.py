"""Masks held by the events of a trainer, rather than by a hook on the optimiser (twore.pruning.hold_masks).

A trainer wraps models and optimisers (DDP, accelerate, torch.compile, loss scaling), but says when an update begins and
ends. Between these the gradients of removed weights are zeroed as they arise, so that a bound on the gradient's norm
and the norm that is logged are those of what is trained; after the update the removed weights are zeroed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from twore.pruning import audit_masks
from twore.pruning.masks import Masks, match_masks


class Hold:
    """Holds the masks of a model whose trainer calls these methods; the weights are zeroed at once.

    model: as `unwrapped` gives it. ValueError when a mask has no weight of its name and shape, or one that is split
    over processes.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        matched = match_masks(model, masks)
        split = [name for name, weight, _ in matched if hasattr(weight, "device_mesh") or hasattr(weight, "ds_id")]
        if split:
            raise ValueError(f"{split[0]} is split over processes, and masks hold whole weights: train with DDP")
        self.model, self.masks = model, dict(masks)
        self._pairs = [(weight, mask.logical_not()) for _, weight, mask in matched]  # True = removed
        self._hooks: list[RemovableHandle] = []
        self.zero_weights()

    @torch.no_grad()
    def zero_weights(self) -> None:
        """Set every removed weight to exactly 0.0, whatever it was."""
        for weight, removed in self._pairs:
            weight.masked_fill_(removed, 0)

    def mask_gradients(self) -> None:
        """From now on gradients of removed weights are zero when they arrive, before any process adds them up."""
        self.free_gradients()
        for weight, removed in self._pairs:
            if weight.requires_grad:
                self._hooks.append(weight.register_hook(_without(removed)))

    def free_gradients(self) -> None:
        """Leave gradients alone again. May be called twice."""
        while self._hooks:
            self._hooks.pop().remove()

    def check(self) -> None:
        """RuntimeError when a removed weight is not exactly zero: something else wrote to the weights."""
        audit = audit_masks(self.model, self.masks)
        if audit.revived:
            raise RuntimeError(
                f"{audit.revived} removed weights are not zero, in {', '.join(audit.revived_names[:3])}: weights were "
                "changed or replaced between two updates (by another callback?), which masks cannot hold"
            )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DDP, DataParallel and torch.compile wrappers, whose parameters have their own names."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)  # torch.compile
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def from_first_process(make: Callable[[], Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """The masks that `make` gives in the first process, in every process of a distributed run.

    make is called in the first process only: other machines need no mask file. Its ValueError or OSError is raised in
    the others as a ValueError of the same words, so that none waits for a process that is gone. device: where this
    process's backend sends tensors from.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return dict(make())
    first = distributed.get_rank() == 0
    masks: dict[str, Tensor] = {}
    said: list = ["", []]  # what went wrong, then (name, shape) of each mask
    failure: Exception | None = None
    if first:
        try:
            masks = dict(make())
            said = ["", [(name, tuple(mask.shape)) for name, mask in masks.items()]]
        except (ValueError, OSError) as error:
            failure, said = error, [str(error), []]
    distributed.broadcast_object_list(said, src=0, device=device)
    if failure is not None:
        raise failure
    if said[0]:
        raise ValueError(said[0])
    for name, shape in said[1]:
        bits = masks[name].to(device, torch.uint8) if first else torch.empty(shape, dtype=torch.uint8, device=device)
        distributed.broadcast(bits, src=0)
        masks[name] = bits.bool()
    return masks


def _without(removed: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient.masked_fill(removed, 0)  # a NaN or infinite entry too
