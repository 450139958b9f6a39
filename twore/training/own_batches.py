"""Batches and dropout noise of a stack whose models each have their own: dense runs that differ in their seed.

Every model's batches and noise are those that its seed gives it alone, whatever else is in the stack. The batches of an
update must have equal shapes, since one operation does the work of all models: so data whose batches are cut by length
(token budgets) cannot be stacked this way.

K models, B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from twore.tasks.base import Batch, TaskData

UNEQUAL = "such dense runs cannot be trained in one stack: use numerics.dense_stack 1"
PLAIN = (bool, int, float, str, bytes, type(None))  # beside tensors, what a batch may hold where it is the same for all


@dataclass(frozen=True)
class Batches:
    """A batch of each model: the tensors stacked, (K, ...) each, and the first model's batch to rebuild one from."""

    tensors: list[Tensor]
    first: Batch

    def of(self, tensors: Sequence[Tensor]) -> Batch:
        """A batch like the first, of other tensors: one model's, in the order of `self.tensors`."""
        return _filled(self.first, iter(tensors))


def side_by_side(data: TaskData, batch_size: int, seeds: Sequence[int]) -> Iterator[Batches]:
    """The training set once for each model, in the order of its seed. ValueError for batches that differ in shape, or
    hold what is no tensor and may differ."""
    streams = {seed: data.epoch(batch_size, seed) for seed in seeds}  # places that fill up a stack share a seed
    for batches in zip_longest(*streams.values()):
        by_seed = dict(zip(streams, batches))
        yield _joined([by_seed[seed] for seed in seeds])


def without_draws(batches: Iterable[Batches], devices: Sequence[torch.device]) -> Iterator[Batches]:
    """The batches. ValueError when, by the next one, anything has drawn from torch's own generators on these devices:
    all models would share such numbers, and depend on the first one's seed."""
    before = _generators(devices)
    for batch in batches:
        yield batch
        if not all(torch.equal(a, b) for a, b in zip(before, _generators(devices), strict=True)):
            raise ValueError(
                f"the data, the model or the loss draws random numbers that all models would share: {UNEQUAL}"
            )


class OwnNoise(TorchFunctionMode):
    """While it is entered, `F.dropout` draws each model's noise from the model's own generator.

    For mapped models. On a CPU the noise is what the model would draw alone; on a GPU torch's own dropout has another
    generator, so it is other noise of the same kind. ValueError in a folded model.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Dropout by our noise; everything else as it is."""
        call = self._dropout if func is F.dropout else func
        return call(*args, **(kwargs or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return input
        if p == 1.0:
            return input.mul_(0.0) if inplace else input * 0.0
        noise = _Noise.apply(input.detach(), p, self._generators)
        return input.mul_(noise) if inplace else input * noise


class _Noise(Function):
    """Factors of dropout, 0 or 1 / (1 - p), in the shape of x."""

    @staticmethod
    def forward(x: Tensor, p: float, generators: list[torch.Generator]) -> Tensor:
        """Not mapped: in a folded model, or of something that all models share."""
        raise ValueError(
            "a channelwise model with dropout, or dropout of a constant, cannot have noise of its own in a stack: "
            "leave out `channelwise`, or use numerics.dense_stack 1"
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """There is no gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, p: float, generators: list[torch.Generator]) -> tuple[Tensor, int]:
        """Of mapped models, as torch's own dropout on a CPU draws it. (K, ...) -> the same"""
        each = zip(x.movedim(in_dims[0], 0), generators)
        return torch.stack([torch.empty_like(one).bernoulli_(1 - p, generator=g).div_(1 - p) for one, g in each]), 0


class AllAtOnce(Function):
    """A folded model as a function of one model's input, for use under vmap: runs all models, gives the mapped one's.

    x: one model's input, mapped. run: (K, B, ...) -> (K, B, F).
    """

    @staticmethod
    def forward(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Never so: the inputs are the models' own."""
        raise ValueError(f"the task's loss gives all models the same input: {UNEQUAL}")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Gradients go through `run`."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, run: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
        """All models."""
        return run(x.movedim(in_dims[0], 0)), 0


def on_channels(x: Tensor) -> Tensor:
    """The inputs side by side on the channel axis, in the memory order of one. (K, B, C, ...) -> (B, K*C, ...)"""
    if x.ndim == 5 and x[0].is_contiguous(memory_format=torch.channels_last):
        return x.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)  # (K, B, C, H, W) -> (B, H, W, K*C) -> ...
    return x.transpose(0, 1).flatten(1, 2)


def stacked(tensors: Sequence[Any]) -> Tensor:
    """Tensors of one shape with an axis K in front, each in the memory order of the first (which torch.stack does not
    promise). K x (...) -> (K, ...)"""
    first: Tensor = tensors[0]
    if not first.is_contiguous() and not (first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last)):
        return torch.stack(list(tensors))
    out = torch.empty_strided(
        (len(tensors), *first.shape), (first.numel(), *first.stride()), dtype=first.dtype, device=first.device
    )
    for k, tensor in enumerate(tensors):
        out[k].copy_(tensor)
    return out


def _joined(batches: Sequence[Batch]) -> Batches:
    leaves = [list(_leaves(batch)) for batch in batches]
    each = [[leaf for leaf in some if isinstance(leaf, Tensor)] for some in leaves]
    shapes = [[(t.shape, t.dtype) for t in tensors] for tensors in each]
    for tensors in shapes:
        if tensors != shapes[0]:
            a, b = (" and ".join(str(tuple(shape)) for shape, _ in some) or "none" for some in (shapes[0], tensors))
            raise ValueError(f"batches of two seeds differ in shape, {a} against {b}: {UNEQUAL}")
    _check_others([[leaf for leaf in some if not isinstance(leaf, Tensor)] for some in leaves])
    return Batches([stacked(parts) for parts in zip(*each)], batches[0])


def _check_others(leaves: Sequence[Sequence[Any]]) -> None:
    """What is no tensor is the first model's for all: so it must be seen to be equal."""
    for some in leaves:
        for leaf in some:
            if not isinstance(leaf, PLAIN):
                raise ValueError(
                    f"a batch holds a {type(leaf).__name__}, which may differ between seeds: make batches of tensors, "
                    "in tuples and mappings, or use numerics.dense_stack 1"
                )
        if list(some) != list(leaves[0]):
            raise ValueError(f"batches of two seeds differ in more than tensors, {leaves[0]} against {some}: {UNEQUAL}")


def _leaves(batch: Batch) -> Iterator[Any]:
    """What nested tuples, lists and mappings hold, in a fixed order."""
    if isinstance(batch, Mapping):
        for value in batch.values():
            yield from _leaves(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _leaves(value)
    else:
        yield batch


def _filled(like: Batch, tensors: Iterator[Tensor]) -> Batch:
    """The same nesting with other tensors; what is no tensor stays (any mapping becomes a dict)."""
    if isinstance(like, Tensor):
        return next(tensors)
    if isinstance(like, Mapping):
        return {name: _filled(value, tensors) for name, value in like.items()}
    if isinstance(like, (tuple, list)):
        values = [_filled(value, tensors) for value in like]
        return type(like)(*values) if hasattr(like, "_fields") else type(like)(values)
    return like


def _generators(devices: Sequence[torch.device]) -> list[Tensor]:
    """States of torch's own generators."""
    states = {"cpu": torch.get_rng_state, "cuda": torch.cuda.get_rng_state, "mps": torch.mps.get_rng_state}
    return [states[device.type]() for device in devices]
