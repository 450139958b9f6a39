"""Metrics between checkpoints, from weights alone: distances, mask distance, prune perturbation, learning rate phase.

Distances are relative: the weights of all layers are read as one long vector, and sums are taken in float64.
Wherever weights are asked for, a model or a mapping from name to weight is taken, as in `spectral_weights`: give
`prunable_weights(model, ...)` to measure exactly what will be pruned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from twore.metrics.layers import KINDS, Weights, spectral_weights
from twore.metrics.registry import register
from twore.pruning import make_masks

FIXED_COUNTS = ("uniform", "erk")  # allocations whose count in a tensor depends on shapes and ratio only
BLOCK = 2**22  # entries taken to float64 at once; our choice: 32 MiB
DROP = (
    0.5  # a rate that falls to half or less from one epoch to the next has dropped; our choice: warm decays fall less
)


@register(
    "distance_from_init",
    takes="weights, earlier weights",
    unit="fraction of the initial norm",
    low=0.0,
    high=math.inf,
    better="none",
    source="relative L2 distance ||W - W_0|| / ||W_0||; Nagarajan and Kolter 2019 for the distance from initialisation",
    cost="one pass over the weights; no data",
)
def distance_from_init(
    weights: Weights, init: Weights, *, kinds: Iterable[str] = KINDS, layers: Iterable[str] | None = None
) -> float:
    """||W - W_0|| / ||W_0|| over all weights together: 0 where nothing moved, no upper end. Not symmetric.

    weights, init: the checkpoint and the same model at initialisation; models or mappings with equal names and shapes.
    NaN when all initial weights are zero. kinds, layers: as `spectral_weights`.
    ValueError for other names or shapes, and for NaN or inf.

    >>> distance_from_init({"w": torch.tensor([[3.0, 4.0]])}, {"w": torch.tensor([[3.0, 0.0]])})  # 4 / 3
    1.3333333333333333
    """
    return _relative_distance(weights, init, kinds, layers)


@register(
    "distance_from_previous",
    takes="weights, earlier weights",
    unit="fraction of the previous norm",
    low=0.0,
    high=math.inf,
    better="none",
    source="relative L2 distance ||W_t - W_s|| / ||W_s|| to the checkpoint before; our choice",
    cost="one pass over the weights; no data",
)
def distance_from_previous(
    weights: Weights, previous: Weights, *, kinds: Iterable[str] = KINDS, layers: Iterable[str] | None = None
) -> float:
    """||W_t - W_s|| / ||W_s||, s the checkpoint before t: how far training still moves. Otherwise `distance_from_init`.

    It depends on how far apart the checkpoints are: compare only along evenly spaced ones.
    """
    return _relative_distance(weights, previous, kinds, layers)


@register(
    "mask_distance",
    takes="weights, other weights, ratio",
    unit="fraction of the mask bits that can differ",
    low=0.0,
    high=1.0,
    better="low",
    source="Hamming distance of pruning masks, You et al. 2020 (early-bird tickets), normalised by its maximum",
    cost="a selection of the k-th magnitude per tensor and checkpoint; no data",
)
def mask_distance(
    weights: Weights,
    other: Weights,
    ratio: float,
    *,
    allocation: str = "uniform",
    kinds: Iterable[str] = KINDS,
    layers: Iterable[str] | None = None,
) -> float:
    """How far the magnitude masks of two checkpoints differ: 0 for equal masks, 1 where they differ all they can.

    Two masks that each remove k of n entries differ in at most 2 min(k, n - k) of them; the number that differ is
    divided by the sum of those maxima over tensors, or over all entries at once where tensors may trade entries
    ("global", "lamp"). So values at different ratios compare. The plain share of differing bits, which You et al.
    compare with 0.1, is this times 2 min(ratio, 1 - ratio). Where nothing can differ (ratio 0): 0. Symmetric.

    weights, other: models or mappings with equal names and shapes, not changed. ratio, allocation: as `make_masks`.
    ValueError for other names or shapes, a ratio outside [0, 1), and NaN or inf.

    >>> mask_distance({"w": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}, {"w": torch.tensor([[4.0, 2.0, 3.0, 1.0]])}, 0.25)
    1.0
    """
    a, b = _matched(weights, other, kinds, layers)
    masks_a, masks_b = (make_masks(w, ratio, allocation=allocation) for w in (a, b))
    counts = [differing_bits(masks_a[name], masks_b[name]) for name in a]
    differ, most = sum(count for count, _ in counts), sum(limit for _, limit in counts)
    if allocation not in FIXED_COUNTS:
        size = sum(mask.numel() for mask in masks_a.values())
        kept = sum(int(mask.count_nonzero()) for mask in masks_a.values())
        most = 2 * min(kept, size - kept)
    return differ / most if most else 0.0


def differing_bits(mask: Tensor, other: Tensor) -> tuple[int, int]:
    """(bits in which two masks of a weight differ, the most that `mask`'s count allows): the parts of mask_distance."""
    kept, size = int(mask.count_nonzero()), mask.numel()
    return int((mask != other.to(mask.device)).count_nonzero()), 2 * min(kept, size - kept)


def squares(weight: Tensor, unit: float = 1.0) -> float:
    """Sum of squares of weight / unit, in float64, a block of entries at a time. The distances are ratios of these."""
    flat = weight.reshape(-1)
    return math.fsum(float(torch.linalg.vector_norm(block.double() / unit) ** 2) for block in flat.split(BLOCK))


def moved_squares(weight: Tensor, earlier: Tensor, unit: float = 1.0) -> float:
    """Sum of squares of the difference / unit, in float64, a block of entries at a time."""
    blocks = zip(weight.reshape(-1).split(BLOCK), earlier.to(weight.device).reshape(-1).split(BLOCK), strict=True)
    return math.fsum(float(torch.linalg.vector_norm((a.double() - b.double()) / unit) ** 2) for a, b in blocks)


def removed_squares(weight: Tensor, mask: Tensor, unit: float = 1.0) -> float:
    """Sum of squares of what a mask removes, / unit; over `squares`, the square of prune_perturbation."""
    return squares(weight.masked_fill(mask, 0), unit)


@register(
    "prune_perturbation",
    takes="weights, ratio",
    unit="fraction of the norm",
    low=0.0,
    high=1.0,
    better="low",
    source="||W - W * mask|| / ||W|| for the magnitude mask at a ratio; our choice",
    cost="a selection of the k-th magnitude per tensor; no data",
)
def prune_perturbation(
    weights: Weights,
    ratio: float,
    *,
    allocation: str = "uniform",
    kinds: Iterable[str] = KINDS,
    layers: Iterable[str] | None = None,
) -> float:
    """What magnitude pruning at `ratio` takes away, as a fraction of the weights' norm: in [0, 1), 0 at ratio 0.

    At most sqrt(ratio), up to the rounding of counts, with allocation="uniform". NaN when all weights are zero.
    weights: a model or mapping, not changed. ratio, allocation: as `make_masks`.
    ValueError for a ratio outside [0, 1), and for NaN or inf.

    >>> round(prune_perturbation({"w": torch.tensor([[3.0, 4.0]])}, 0.5), 12)
    0.6
    """
    own = _finite(spectral_weights(weights, kinds=kinds, layers=layers))
    masks = make_masks(own, ratio, allocation=allocation)
    unit = _unit(own)
    whole = math.fsum(squares(w, unit) for w in own.values())
    removed = math.fsum(removed_squares(w, masks[name], unit) for name, w in own.items())
    return math.sqrt(removed / whole) if whole else math.nan


def rate_phase(rates: Sequence[float]) -> list[int]:
    """How many learning rate drops lie behind each epoch: [0.1, 0.1, 0.01, 0.01] -> [0, 0, 1, 1].

    rates: the rate of each epoch in order. A drop is a fall to half or less from one epoch to the next, so inverse
    square root and cosine schedules stay in phase 0 for most of their length: they have no phases.
    ValueError for a rate that is negative or not finite.
    """
    if any(not math.isfinite(rate) or rate < 0 for rate in rates):
        raise ValueError("learning rates are finite and not negative")
    phases, drops = [], 0
    for i, rate in enumerate(rates):
        drops += i > 0 and rates[i - 1] > 0 and rate <= DROP * rates[i - 1]
        phases.append(drops)
    return phases


def _relative_distance(weights: Weights, earlier: Weights, kinds: Iterable[str], layers: Iterable[str] | None) -> float:
    now, then = _matched(weights, earlier, kinds, layers)
    unit = _unit(then)
    moved = math.fsum(moved_squares(now[name], then[name], unit) for name in now)
    norm = math.fsum(squares(w, unit) for w in then.values())
    return math.sqrt(moved) / math.sqrt(norm) if norm else math.nan


def _matched(
    weights: Weights, other: Weights, kinds: Iterable[str], layers: Iterable[str] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two sides' weights, finite, with equal names and shapes, in the order of the first."""
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    layers = [layers] if isinstance(layers, str) else None if layers is None else list(layers)
    a, b = (_finite(spectral_weights(w, kinds=kinds, layers=layers)) for w in (weights, other))
    strange = sorted(a.keys() ^ b.keys())
    if strange:
        raise ValueError(f"two checkpoints of one model have equal names: {strange[0]} is only in one of them")
    for name, weight in a.items():
        if weight.shape != b[name].shape:
            raise ValueError(f"{name} is {tuple(weight.shape)} in one checkpoint, {tuple(b[name].shape)} in the other")
    return a, {name: b[name] for name in a}


def _finite(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, checked, as strided tensors of a dtype that can be selected from."""
    plain = {}
    for name, weight in weights.items():
        if weight.is_complex():
            raise ValueError(f"the weight {name} is complex: real weights are measured")
        dense = weight if weight.layout is torch.strided else weight.to_dense()
        plain[name] = dense.float() if dense.is_floating_point() and dense.itemsize == 1 else dense  # of 8 bits
        if not bool(plain[name].isfinite().all()):
            raise ValueError(f"the weight {name} holds NaN or inf: the run diverged, or the file is damaged")
    return plain


def _unit(weights: dict[str, Tensor]) -> float:
    """A power of two near the largest magnitude, so that squares of numbers divided by it fit into a float; 1 for 0."""
    top = max((float(w.double().abs().max()) for w in weights.values() if w.numel()), default=0.0)
    return 2.0 ** min(math.frexp(top)[1], 1023) if top else 1.0
