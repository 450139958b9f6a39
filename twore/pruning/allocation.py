"""How many entries each tensor loses, for an asked total: uniform, global, ERK, LAMP.

Every rule gives integers: `uniform` removes round(ratio * n) of each tensor, the others round(ratio * total) in all,
exactly. Which entries of a tensor go is the score's business, not the allocation's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from twore.pruning.choices import unknown
from twore.pruning.scores import magnitude
from twore.pruning.selection import counts_of_lowest


def removed_counts(
    weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], ratio: float, allocation: str
) -> dict[str, int]:
    """Entries to remove of each tensor. weights: name -> (...); scores: name -> (n,), ranked; ratio: in [0, 1)."""
    if allocation not in ALLOCATIONS:
        raise unknown("allocation", allocation, ALLOCATIONS)
    return ALLOCATIONS[allocation](weights, scores, ratio)


def uniform(weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], ratio: float) -> dict[str, int]:
    """round(ratio * n) of each tensor (Python's round: half to even): the report's layerwise uniform pruning."""
    return {name: round(ratio * weight.numel()) for name, weight in weights.items()}


def global_(weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], ratio: float) -> dict[str, int]:
    """The lowest scores of all tensors together; of equal scores, those of the earliest tensor go first."""
    return counts_of_lowest(scores, round(ratio * _total(weights)))


def erk(weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], ratio: float) -> dict[str, int]:
    """Erdos-Renyi-kernel: density proportional to sum(shape) / prod(shape) (Evci et al. 2020, RigL, section 3).

    A tensor whose density would exceed 1 is kept whole and the rest shared again among the others; the fractions that
    remain are rounded by largest remainder, the earliest tensor first among equals. In integers: no rounding error.
    """
    sizes = {name: weight.numel() for name, weight in weights.items()}
    # density * prod(shape), up to the common factor: the entries that a tensor may keep grow with the sum of its dims
    shares = {name: max(1, sum(weight.shape)) for name, weight in weights.items()}
    to_keep = _total(weights) - round(ratio * _total(weights))
    kept: dict[str, int] = {}
    while True:
        free = [name for name in sizes if name not in kept]
        budget, share = to_keep - sum(kept.values()), sum(shares[name] for name in free)
        full = [name for name in free if budget * shares[name] > sizes[name] * share]
        if not full:
            break
        kept.update((name, sizes[name]) for name in full)
    if free:
        kept |= {name: budget * shares[name] // share for name in free}
        missing = to_keep - sum(kept.values())  # fewer than tensors with a remainder, so none exceeds its size
        by_remainder = sorted(free, key=lambda name: -(budget * shares[name] % share))  # stable: ties by order
        kept |= {name: kept[name] + 1 for name in by_remainder[:missing]}
    return {name: sizes[name] - kept[name] for name in sizes}


def lamp(weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], ratio: float) -> dict[str, int]:
    """Layer-adaptive magnitude pruning (Lee et al. 2021, eq. 4): the lowest LAMP scores of all tensors together.

    The LAMP score of an entry is w**2 over the sum of v**2 of all entries v that rank at or above it in its tensor;
    it grows with the rank, so with score="magnitude" the entries removed are LAMP's own. With another score the
    tensors lose as many entries as under LAMP, and that score says which.
    """
    return counts_of_lowest(
        {name: _lamp_scores(name, weight) for name, weight in weights.items()}, round(ratio * _total(weights))
    )


Allocation = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], float], dict[str, int]]
ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "global": global_, "erk": erk, "lamp": lamp}


def _total(weights: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() for weight in weights.values())


def _lamp_scores(name: str, weight: Tensor) -> Tensor:
    """LAMP scores in the order of rank, lowest first: float64 on the CPU. (...) -> (n,)

    The sum runs on the CPU because a parallel sum's rounding would depend on the device.
    """
    ordered = magnitude(name, weight, 0).reshape(-1).sort().values.cpu().to(torch.float64)
    if ordered.numel() == 0 or ordered[-1] == 0:
        return torch.zeros_like(ordered)
    if torch.isinf(ordered[-1]):
        raise ValueError(f"{name} has infinite entries, for which LAMP is not defined: use another allocation")
    squares = (ordered / ordered[-1]).square()  # the score has no scale; the largest square is 1, so no overflow
    return squares / squares.flip(0).cumsum(0).flip(0)
