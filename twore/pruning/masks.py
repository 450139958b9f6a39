"""Masks: made with exact counts, applied, audited, reported.

A mask is a bool tensor of its weight's shape, True = kept; it is an object of its own, never inferred from zeros.
Held through fine-tuning: `holding.py`; on disk: `files.py`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from twore.pruning.allocation import removed_counts
from twore.pruning.choices import listed
from twore.pruning.scores import Score, score_weights
from twore.pruning.selection import lowest
from twore.pruning.weights import plain_name

Masks = Mapping[str, Tensor]


def make_masks(
    weights: Mapping[str, Tensor],
    ratio: float,
    *,
    score: str | Score = "magnitude",
    allocation: str = "uniform",
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which entries to keep: name -> bool tensor of the weight's shape and on its device.

    weights: name -> tensor, e.g. from `prunable_weights`; not changed.
    ratio: the fraction removed, in [0, 1). Exactly round(ratio * n) entries of each tensor go with
        allocation="uniform", exactly round(ratio * total) of all together with "global", "erk" and "lamp"
        (Python's round: half to even).
    score: "magnitude", "random" (drawn from `seed`), or a function (name, tensor) -> tensor of the same shape,
        higher = keep. The lowest scores go; of equal scores the lowest flat index goes first, and between tensors
        ("global", "lamp") the earliest in the mapping.

    The same values give the same masks on every device and for every memory format. Raises ValueError for a ratio out
    of range, NaN weights or scores, weights without data (meta, lazy), and unknown names.
    """
    ratio = check_ratio(ratio)
    _check_weights(weights)
    scores = score_weights(weights, score, seed)
    removed = removed_counts(weights, scores, ratio, allocation)
    return {
        name: lowest(scores[name], removed[name]).logical_not_().reshape(weight.shape).to(weight.device)
        for name, weight in weights.items()
    }


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set every removed weight to exactly 0.0, in place, whatever it was (infinite, NaN, negative).

    Raises ValueError when a mask has no weight of its name and shape in the model.
    """
    for _, weight, mask in match_masks(model, masks):
        weight.masked_fill_(~mask, 0)


def sparsity_report(masks: Masks) -> pd.DataFrame:
    """A row a mask, in their order. Columns: name, shape (tuple), size and kept (entries), density (kept / size)."""
    kept = _to_host([mask.count_nonzero() for mask in masks.values()])
    rows = [
        (name, tuple(mask.shape), mask.numel(), count, _density(count, mask.numel()))
        for (name, mask), count in zip(masks.items(), kept, strict=True)
    ]
    return pd.DataFrame(rows, columns=["name", "shape", "size", "kept", "density"])


@dataclass(frozen=True)
class Audit:
    """What a model's masked weights look like. `revived == 0` proves that every removed weight is exactly zero."""

    size: int  # entries under masks
    kept: int  # of them, kept by the masks (a kept weight may happen to be zero)
    density: float  # kept / size, in [0, 1]
    revived: int  # removed entries whose weight is not exactly zero (NaN counts)
    revived_names: tuple[str, ...]  # the weights that hold them, as the masks name them


@torch.no_grad()
def audit_masks(model: nn.Module, masks: Masks) -> Audit:
    """Count the removed weights that are not exactly zero. Reads only; waits for the device once.

    Raises ValueError when a mask has no weight of its name and shape in the model.
    """
    matched = match_masks(model, masks)
    kept = [mask.count_nonzero() for _, _, mask in matched]
    revived = [(weight.ne(0) & ~mask).count_nonzero() for _, weight, mask in matched]
    counts = _to_host(kept + revived)
    alive = counts[len(matched) :]
    size, total_kept = sum(mask.numel() for _, _, mask in matched), sum(counts[: len(matched)])
    names = tuple(name for (name, _, _), count in zip(matched, alive, strict=True) if count)
    return Audit(size, total_kept, _density(total_kept, size), sum(alive), names)


def match_masks(model: nn.Module, masks: Masks) -> list[tuple[str, nn.Parameter, Tensor]]:
    """(name, weight, mask on the weight's device) of every mask; ValueError listing the masks that fit no weight.

    The prefix that torch.compile adds to names is ignored on both sides, so masks of a model fit its compiled self.
    """
    parameters = {plain_name(name): value for name, value in model.named_parameters(remove_duplicate=False)}
    strangers = [name for name in masks if plain_name(name) not in parameters]
    if strangers:
        raise ValueError(
            f"masks without a weight of that name in the model: {listed(strangers)}. "
            "Masks fit the model whose prunable_weights they were made from"
        )
    matched, misfits = [], []
    for name, mask in masks.items():
        weight = parameters[plain_name(name)]
        if weight.is_meta or is_lazy(weight):
            raise ValueError(f"{name} has no data yet (meta or lazy): load or initialise the model first")
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            misfits.append(f"{name} ({mask.dtype}, {tuple(mask.shape)} for {tuple(weight.shape)})")
        else:
            matched.append((name, weight, mask.to(weight.device)))
    if misfits:
        raise ValueError(f"masks that are not bool tensors of their weight's shape: {listed(misfits)}")
    return matched


def check_ratio(ratio: float) -> float:
    """`ratio` as a float, or ValueError: the fraction removed, in [0, 1)."""
    if not isinstance(ratio, numbers.Real) or not 0 <= ratio < 1:
        got = ratio if isinstance(ratio, numbers.Real) else repr(ratio)
        raise ValueError(f"ratio is the fraction removed, in [0, 1): got {got}")
    return float(ratio)


def _check_weights(weights: Mapping[str, Tensor]) -> None:
    if not weights:
        raise ValueError("no weights to make masks for: pass a mapping of names to tensors, as prunable_weights does")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor):
            raise ValueError(f"weights maps names to tensors: {name} is a {type(weight).__name__}")
        if weight.is_meta or is_lazy(weight):
            raise ValueError(f"{name} has no data yet (meta or lazy): load or initialise the model first")
        values = weight.detach()
        if values.is_floating_point() and values.element_size() == 1:
            values = values.float()  # the 8-bit types have no isnan
        if bool(values.isnan().any()):
            raise ValueError(f"{name} has NaN entries: its training diverged; make masks from an earlier checkpoint")


def _density(kept: int, size: int) -> float:
    return kept / size if size else math.nan


def _to_host(counts: list[Tensor]) -> list[int]:
    """0-d counts -> ints, in one transfer."""
    if not counts:
        return []
    device = counts[0].device
    return [int(count) for count in torch.stack([count.to(device) for count in counts]).tolist()]
