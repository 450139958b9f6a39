"""Masks held through training: removed weights are zeroed after every optimizer.step(), whatever the optimizer does.

Masking gradients alone is not enough: momentum and weight decay move removed weights. Zeroing the weights after the
step is right for every optimizer that works entry by entry (SGD with momentum, Adam, AdamW). Two things to know:

- Gradient clipping by norm sees the gradients of removed weights too; call `handle.zero_gradients()` before clipping
  so that the norm is the sub-network's own. The same holds for optimizers with a norm per tensor (LARS, LAMB).
- torch does not copy step hooks: a deep-copied, pickled or new optimizer must be given to `hold_masks` again.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from twore.pruning.masks import Masks, match_masks

# Weights are seen as integers of their own width and multiplied by 0 or 1: one fused call for all tensors (as fast as
# a float multiplication), and unlike 0.0 * w it turns infinite and NaN entries into 0.0 too, and never makes a -0.0.
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes an entry -> dtype


def hold_masks(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> MaskHandle:
    """Zero the removed weights now and after every `optimizer.step()`, until `handle.remove()`.

    Also a context manager: `with hold_masks(...) as handle:`. `handle.masks = grown` changes the masks (gradual
    schedules). The model and its names are left as they are; a masked weight that the optimizer does not train is
    held as well. Weights are held as the Parameter objects they are now: hold again after replacing them
    (load_state_dict(assign=True)) or moving the model to another device.

    Raises ValueError when a mask has no weight of its name and shape in the model.
    """
    return MaskHandle(model, masks, optimizer)


class MaskHandle:
    """What `hold_masks` returns."""

    def __init__(self, model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self.update(masks)
        self._hook = optimizer.register_step_post_hook(self._after_step)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks that are held; assigning is `update`."""
        return dict(self._masks)

    @masks.setter
    def masks(self, masks: Masks) -> None:
        self.update(masks)

    @torch.no_grad()
    def update(self, masks: Masks) -> None:
        """Hold other masks from now on, and zero at once. Entries that only the old masks removed may move again."""
        matched = match_masks(self._model, masks)
        for name, weight, _ in matched:
            if weight.element_size() not in INTEGERS:
                raise ValueError(f"{name}: weights of dtype {weight.dtype} cannot be held")
        self._masks = dict(masks)
        self._weights = [weight for _, weight, _ in matched]
        self._keep = []
        for _, weight, mask in matched:
            keep = torch.empty_like(weight, dtype=INTEGERS[weight.element_size()])  # the weight's memory format
            self._keep.append(keep.copy_(mask))
        self.zero_weights()

    @torch.no_grad()
    def zero_weights(self) -> None:
        """Zero the removed weights; done after every step already."""
        if self._weights:
            torch._foreach_mul_([w.view(INTEGERS[w.element_size()]) for w in self._weights], self._keep)

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Zero the gradients of removed weights; optional, before clipping by norm (see the module's text)."""
        pairs = [(w.grad, keep) for w, keep in zip(self._weights, self._keep, strict=True) if w.grad is not None]
        for gradient, keep in pairs:
            gradient.masked_fill_(keep == 0, 0)

    def remove(self) -> None:
        """Stop holding; the weights stay as they are. May be called twice."""
        self._hook.remove()

    def __enter__(self) -> MaskHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.zero_weights()
