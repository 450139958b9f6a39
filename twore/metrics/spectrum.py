"""random_distance (report eq. 2): how far the spectra of a model's weights are from those of shuffled weights.

For a linear weight, and for each kernel offset of a convolution, take the eigenvalues of W^T W; pool the offsets, sort,
divide by the sum; compare rank by rank with the same matrices after a random permutation of their entries. The Jensen-
Shannon divergence is the report's eq. 2; its square root is WeightWatcher's `rand_distance`, the tool the report used.
Both come from one pass, `measure_layers`, whose eigenvalues the other spectral metrics share (spectra.py).
Letters: P permutations, S slices of a layer, r x c a slice, E = S * min(r, c) eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from twore.metrics.divergence import LN2, js_rows
from twore.metrics.gram import CHUNK, as_slices, compute_device, pooled_eigenvalues
from twore.metrics.layers import KINDS, Weights, kind_of, spectral_weights
from twore.metrics.random_copies import NULLS, permuted_slices, redrawn_slices
from twore.metrics.registry import register

MIN_EVALS = 8  # eigenvalues a layer needs to count; WeightWatcher 0.7.7
PERMUTATIONS = 10  # our choice: one permutation moves the value of a small network by some 5 %


@dataclass(frozen=True, eq=False)
class SpectralDistance:
    """One kind of random distance of one set of weights; `float()` gives its value.

    kind         "distance" (sqrt of nats, at most 0.8326) or "divergence" (nats, at most ln 2)
    value        mean over counted layers, averaged over permutations; NaN when every layer that could count is all zero
    stderr       standard error of `value` over the permutations; NaN for one
    noise_floor  the same mean between one permuted copy and the next, what weights without structure would give;
                 NaN for one permutation
    permutations P
    layers       DataFrame[name, kind, shape, evals, value, stderr, noise_floor, counted]; an all-zero layer has no
                 spectrum: its numbers are NaN and it is not counted
    """

    kind: str
    value: float
    stderr: float
    noise_floor: float
    permutations: int
    layers: pd.DataFrame

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True, eq=False)
class SpectralDistances:
    """Both kinds from the same permutations."""

    distance: SpectralDistance
    divergence: SpectralDistance


@register(
    "random_distance",
    takes="weights",
    unit="sqrt(nats)",
    low=0.0,
    high=math.sqrt(LN2),
    better="high",
    source="report eq. 2 in WeightWatcher's convention (rand_distance): square root of the JS divergence",
    cost="P + 1 symmetric eigenvalue problems a weight matrix; no data",
)
def random_distance(
    model_or_mapping: Weights,
    *,
    kind: str = "distance",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Iterable[str] | None = None,
    device: torch.device | str | None = None,
) -> SpectralDistance:
    """Distance of the weights' spectra from random: 0 for none, at most sqrt(ln 2) ("distance") or ln 2 ("divergence").

    Larger means further from random; unchanged by scaling a layer or reordering its rows or columns. It is not 0 for
    random weights of finite size: compare with `noise_floor`.
    A permutation is fixed by the seed, the layer's name and shape, and the permutation's number: all checkpoints of a
    trajectory see the same ones, on any device (pass the bare model: a wrapper's prefix changes the names).

    kind: "distance" (default) or "divergence"; `spectral_distances` gives both at the same cost.
    min_evals: a layer counts when it has at least so many eigenvalues, a convolution's slices pooled.
    kinds, layers: as `spectral_weights`. device: where to compute, in float64; default: where each weight is.
    ValueError for NaN or inf, for unknown options, and when no layer is large enough to count.

    >>> random_distance({"w": torch.eye(16)}).value > 0.3  # shuffled ones pile up in some columns
    True
    """
    if kind not in ("distance", "divergence"):
        raise ValueError(f"kind is 'distance' or 'divergence': got {kind!r}")
    both = spectral_distances(
        model_or_mapping,
        permutations=permutations,
        seed=seed,
        min_evals=min_evals,
        kinds=kinds,
        layers=layers,
        device=device,
    )
    return both.distance if kind == "distance" else both.divergence


@register(
    "random_divergence",
    takes="weights",
    unit="nats",
    low=0.0,
    high=LN2,
    better="high",
    source="report eq. 2 as printed: JS divergence",
    cost="as random_distance; both from one pass with spectral_distances",
)
def random_divergence(
    model_or_mapping: Weights,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Iterable[str] | None = None,
    device: torch.device | str | None = None,
) -> SpectralDistance:
    """`random_distance` with kind="divergence": mean JS divergence over layers in nats, 0 to ln 2."""
    return spectral_distances(
        model_or_mapping,
        permutations=permutations,
        seed=seed,
        min_evals=min_evals,
        kinds=kinds,
        layers=layers,
        device=device,
    ).divergence


@torch.no_grad()
def spectral_distances(
    model_or_mapping: Weights,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Iterable[str] | None = None,
    device: torch.device | str | None = None,
) -> SpectralDistances:
    """Distance and divergence of the same weights and permutations, from one pass. Options as `random_distance`."""
    _whole("permutations", permutations)
    table, spectra = measure_layers(
        spectral_weights(model_or_mapping, kinds=kinds, layers=layers),
        permutations=permutations,
        seed=seed,
        min_evals=min_evals,
        device=device,
    )
    return summarised(table, spectra)


@dataclass(frozen=True, eq=False)
class LayerSpectra:
    """What one pass over a layer leaves, on the CPU; every spectral metric is computed from it.

    scale           largest magnitude of a weight; 0 for an all-zero or empty layer
    evals           eigenvalues of W^T W / scale^2, slices pooled, ascending, >= 0: (E,) float64; zeros if scale is 0
    to_random       JS divergence to each random copy, nats: (P,); NaN if scale is 0, as the next two
    between_random  JS divergence from each random copy to the next, nats: (P - 1,)
    top_random      largest eigenvalue of each random copy, / scale^2: (P,)
    """

    scale: float
    evals: np.ndarray
    to_random: np.ndarray
    between_random: np.ndarray
    top_random: np.ndarray


@torch.no_grad()
def measure_layers(
    weights: Mapping[str, Tensor],
    *,
    permutations: int,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    null: str = "permuted",
    device: torch.device | str | None = None,
) -> tuple[pd.DataFrame, list[LayerSpectra]]:
    """DataFrame[name, kind, shape, evals, counted] and each layer's spectra; permutations may be 0 here.

    null: "permuted", entries shuffled within each slice, or "reinitialised", entries drawn from a normal law with the
    mean and the standard deviation of all the layer's entries. ValueError as `random_distance`.
    """
    _whole("permutations", permutations, least=0)
    _whole("min_evals", min_evals)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"seed is a whole number: got {seed!r}")
    if null not in NULLS:
        raise ValueError(f"null is one of {', '.join(NULLS)}: got {null!r}")
    rows: list[tuple[str, str, tuple[int, ...], int]] = []
    spectra: list[LayerSpectra] = []
    for name, weight in weights.items():  # each is asked for once, so that a mapping may read it from a file
        rows.append((name, kind_of(weight), tuple(weight.shape), _count(weight)))
        spectra.append(_measure(name, weight, permutations, seed, null=null, device=device))
    table = pd.DataFrame(rows, columns=["name", "kind", "shape", "evals"])
    if table["evals"].max() < min_evals:
        raise ValueError(
            f"no layer has min_evals={min_evals} eigenvalues (the largest has {table['evals'].max()}): lower min_evals"
        )
    table["counted"] = [count >= min_evals and s.scale > 0 for count, s in zip(table["evals"], spectra)]
    return table, spectra


def summarised(table: pd.DataFrame, spectra: list[LayerSpectra]) -> SpectralDistances:
    """Both random distances of measured layers."""
    counted = table["counted"].to_numpy(dtype=bool)
    about = table.drop(columns="counted")
    to_random = np.stack([s.to_random for s in spectra])  # (layers, P)
    between_random = np.stack([s.between_random for s in spectra])  # (layers, P - 1)
    return SpectralDistances(
        distance=_summary("distance", about, counted, np.sqrt(to_random), np.sqrt(between_random)),
        divergence=_summary("divergence", about, counted, to_random, between_random),
    )


def _measure(
    name: str, weight: Tensor, permutations: int, seed: int, *, null: str, device: torch.device | str | None
) -> LayerSpectra:
    slices, scale = as_slices(name, weight, short=null == "permuted")  # a shuffle moves entries of any type alike
    if scale == 0.0:  # no spectrum to speak of; an empty layer too
        missing = np.full(permutations, np.nan)
        return LayerSpectra(0.0, np.zeros(_count(weight)), missing, missing[1:], missing)
    where = compute_device(weight, device)
    evals = pooled_eigenvalues(slices[None], scale, where)  # (1, E)
    own = _normalised(evals)
    draw = permuted_slices if null == "permuted" else redrawn_slices
    step = max(1, CHUNK // slices.size)
    shares, tops = [own[:0]], [evals[:0, -1]]
    for start in range(0, permutations, step):
        numbers = range(start, min(start + step, permutations))
        drawn = [draw(slices, seed=seed, name=name, number=k) for k in numbers]  # each (S, r, c)
        stack = np.stack(drawn) if len(drawn) > 1 else drawn[0][None]  # no second copy of a large one
        copies = pooled_eigenvalues(stack, scale, where)
        shares.append(_normalised(copies))
        tops.append(copies[:, -1])
    random = torch.cat(shares)  # (P, E)
    return LayerSpectra(
        scale=scale,
        evals=evals[0].cpu().numpy(),
        to_random=js_rows(own, random).cpu().numpy(),
        between_random=js_rows(random[:-1], random[1:]).cpu().numpy(),
        top_random=torch.cat(tops).cpu().numpy(),
    )


def _normalised(evals: Tensor) -> Tensor:
    return evals / evals.sum(dim=1, keepdim=True)


def _summary(
    kind: str, table: pd.DataFrame, counted: np.ndarray, to_random: np.ndarray, between_random: np.ndarray
) -> SpectralDistance:
    """Averages of (layers, P) and (layers, P - 1) numbers."""
    permutations = to_random.shape[1]
    layers = table.assign(
        value=to_random.mean(axis=1),
        stderr=_stderr(to_random),
        noise_floor=between_random.mean(axis=1) if permutations > 1 else np.nan,
        counted=counted,
    )
    value = stderr = noise_floor = math.nan
    if counted.any():
        means = to_random[counted].mean(axis=0)  # (P,): the value each permutation alone would give
        value, stderr = float(means.mean()), float(_stderr(means))
        noise_floor = float(layers["noise_floor"][counted].mean())
    return SpectralDistance(kind, value, stderr, noise_floor, permutations, layers)


def _stderr(values: np.ndarray) -> np.ndarray | float:
    """Standard error of the mean over the last axis; NaN for one value."""
    n = values.shape[-1]
    return values.std(axis=-1, ddof=1) / math.sqrt(n) if n > 1 else values[..., 0] * math.nan


def _count(weight: Tensor) -> int:
    return math.prod(weight.shape[2:]) * min(weight.shape[:2])


def _whole(option: str, number: int, *, least: int = 1) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
        raise ValueError(f"{option} is a whole number, at least {least}: got {number!r}")
