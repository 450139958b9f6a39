"""All spectral metrics of a set of weights from one pass: one eigen-decomposition a matrix, shared by everything.

lambda are a layer's eigenvalues of W^T W, in WeightWatcher 0.7.7's conventions: of a linear weight as it is, of a
convolution those of all kernel offsets pooled and halved (it multiplies convolutions by sqrt(1/2)). A layer's columns:

    lambda_max, norm      the largest and the sum        log_spectral_norm, log_norm      their log10
    stable_rank           norm / lambda_max              matrix_rank            eigenvalues that are not rounding
    spectral_entropy      -sum p ln p / ln(matrix_rank), p = lambda / norm; WeightWatcher's `entropy`; 0 for rank 1
    random_distance, random_divergence (with _stderr, _noise_floor)      report eq. 2, see spectrum.py
    ww_softrank           largest eigenvalue of the random copies / lambda_max, mean over copies
    powerlaw_alpha, _xmin, _ks, _sigma, _tail; log_alpha_norm = log10 sum lambda^alpha; alpha_weighted = alpha log10
                          lambda_max                     see powerlaw.py
    etpl_alpha, etpl_lambda, etpl_xmin, etpl_ks; exp_lambda, exp_xmin, exp_ks            see truncated.py
    mp_softrank, mp_sigma, mp_spikes                     see marchenko_pastur.py

Eigenvalues up to 1e-5 take no part in power laws, E-TPL and EXP (WeightWatcher's threshold, whatever the scale of the
layer). They come from Gram matrices, whose rounding is 1e-16 of lambda_max: so matrix_rank counts lambda > lambda_max N
eps, N the longer side, where WeightWatcher compares singular values; that differs for nearly singular layers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from twore.metrics.layers import KINDS, Weights, spectral_weights
from twore.metrics.marchenko_pastur import fit_bulk
from twore.metrics.powerlaw import fit_power_laws
from twore.metrics.spectrum import MIN_EVALS, PERMUTATIONS, LayerSpectra, measure_layers, summarised
from twore.metrics.truncated import fit_truncated
from twore.metrics.weightwatcher_engine import weightwatcher_layers

ENGINES = ("twore", "weightwatcher")
FITS = ("powerlaw", "truncated", "bulk")
HALVED = {"conv": 0.5, "linear": 1.0}  # times the eigenvalues; WeightWatcher 0.7.7
ENTROPY_FLOOR = 1e-10  # added to every p; WeightWatcher 0.7.7
RANDOM = ("random_distance", "random_divergence")  # these have a standard error and a noise floor
ABOUT = ("name", "kind", "shape", "evals", "counted")  # columns that are no metric


@dataclass(frozen=True, eq=False)
class SpectralMetrics:
    """Every metric of one set of weights, by the names of METRICS (and the other columns of `layers`).

    values       mean over counted layers in which the metric is defined; NaN where there is none
    stderr       of random_distance and random_divergence over the permutations; NaN for one
    noise_floor  of the same two: what weights without structure would give; NaN for one permutation
    layers       DataFrame, a row a layer: name, kind, shape, evals, counted, and a column a metric, NaN where undefined
    """

    values: dict[str, float]
    stderr: dict[str, float]
    noise_floor: dict[str, float]
    layers: pd.DataFrame


def spectral_metrics(
    model_or_mapping: Weights,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Iterable[str] | None = None,
    fits: bool | Iterable[str] = True,
    null: str = "permuted",
    engine: str = "twore",
    device: torch.device | str | None = None,
) -> SpectralMetrics:
    """All spectral metrics at once; formulas in the module's docstring. Random numbers are those of `random_distance`.

    permutations: random copies; 0 leaves the metrics out that need them.
    null: what copies are: "permuted" (default), or "reinitialised", normal entries with the mean and the standard
        deviation of all the layer's entries.
    min_evals: a layer counts when it has at least so many eigenvalues, pooled, and is not all zero.
    kinds, layers: as `spectral_weights`. device: where to decompose, in float64; default: where each weight is.
    fits: all, none, or some of "powerlaw", "truncated" (E-TPL and EXP), "bulk" (Marchenko-Pastur).
    engine: "weightwatcher" lets that tool compute each layer (slow; its own permutations from NumPy's global generator
        seeded with `seed`, "permuted" only; no E-TPL or EXP; weights rounded to float32); only layers, averages and
        errors are ours. What it does to logging, warnings and random numbers is undone.
    ValueError for NaN or inf, for unknown options, and when no layer is large enough to count.

    >>> spectral_metrics({"w": torch.diag(torch.arange(1.0, 11.0))}, fits=False).values["stable_rank"]  # 385 / 100
    3.85
    """
    wanted = _checked_fits(fits)
    if engine not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(ENGINES)}: got {engine!r}")
    weights = spectral_weights(model_or_mapping, kinds=kinds, layers=layers)
    ours = engine == "twore"
    if not ours and null != "permuted":
        raise ValueError(f"engine 'weightwatcher' knows the null 'permuted' only: got {null!r}")
    if ours:
        return _measured(weights, wanted, permutations, seed=seed, min_evals=min_evals, null=null, device=device)
    # with the other engine: no copies, and one decomposition, which checks the weights and says which layers count
    table, spectra = measure_layers(weights, permutations=0, seed=seed, min_evals=min_evals, device=device)
    columns, spectra = weightwatcher_layers(weights, spectra, permutations=permutations, seed=seed, fits=wanted)
    return _averaged(table.join(columns), spectra, permutations)


def streamed_spectral_metrics(
    weights: Mapping[str, Tensor],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    fits: bool | Iterable[str] = True,
) -> SpectralMetrics:
    """`spectral_metrics` of every weight of a mapping that reads them from a file: one is in memory at a time.

    weights: names and the weights themselves, 2 to 5 axes each, all of which are measured; each is asked for once.
    Otherwise as `spectral_metrics`, with the same numbers.
    """
    return _measured(weights, _checked_fits(fits), permutations, seed=seed, min_evals=min_evals)


def _measured(
    weights: Mapping[str, Tensor], fits: set[str], permutations: int, *, seed: int, min_evals: int,
    null: str = "permuted", device: torch.device | str | None = None,
) -> SpectralMetrics:  # fmt: skip
    table, spectra = measure_layers(
        weights, permutations=permutations, seed=seed, min_evals=min_evals, null=null, device=device
    )
    return _averaged(table.join(_columns(table, spectra, fits, permutations)), spectra, permutations)


def _columns(table: pd.DataFrame, spectra: list[LayerSpectra], fits: set[str], permutations: int) -> pd.DataFrame:
    """The metrics of each layer, by this package."""
    roots = np.sqrt(table["kind"].map(HALVED).to_numpy(dtype=float)) * np.array([s.scale for s in spectra])
    sides = [sorted(shape[:2]) for shape in table["shape"]]
    columns = pd.DataFrame([_sizes(s.evals, r, side[-1]) for s, r, side in zip(spectra, roots, sides, strict=True)])
    if permutations:
        columns["ww_softrank"] = [s.top_random.mean() / (s.evals.max(initial=0.0) or math.nan) for s in spectra]
    if not fits:
        return columns
    with np.errstate(over="ignore"):
        evals = [s.evals * r**2 for s, r in zip(spectra, roots, strict=True)]
    # beyond 1e308 (weights of 1e154 and more) there is nothing to fit
    evals = [e if np.isfinite(e).all() else e[:0] for e in evals]
    columns = columns.join(_fitted(evals, fits & {"powerlaw", "truncated"}, columns["log_spectral_norm"].to_numpy()))
    if "bulk" in fits:
        bulks = [fit_bulk(s.evals, *side) for s, side in zip(spectra, sides, strict=True)]  # at any scale
        for part in ("softrank", "sigma", "spikes"):
            columns[f"mp_{part}"] = [getattr(bulk, part) for bulk in bulks]
    return columns


def _sizes(evals: np.ndarray, root: np.float64, longer: int) -> dict[str, float]:
    """What needs no fit; evals: in units of root^2, so that no scale of weights is too small or too large."""
    names = ("lambda_max", "norm", "log_spectral_norm", "log_norm", "stable_rank", "matrix_rank", "spectral_entropy")
    total = float(evals.sum())
    if not total > 0:
        return dict.fromkeys(names, math.nan)
    top = float(evals[-1])
    rank = int((evals > top * longer * np.finfo(np.float64).eps).sum())
    p = evals / total + ENTROPY_FLOOR
    entropy = float(-(p * np.log(p)).sum() / math.log(rank + ENTROPY_FLOOR)) if rank > 1 else 0.0
    with np.errstate(over="ignore", under="ignore"):
        sizes = (float(top * root**2), float(total * root**2))
    logs = (math.log10(top) + 2 * math.log10(root), math.log10(total) + 2 * math.log10(root))
    return dict(zip(names, (*sizes, *logs, total / top, rank, entropy), strict=True))


def _fitted(evals: list[np.ndarray], fits: set[str], log_top: np.ndarray) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    if "powerlaw" in fits:
        laws = fit_power_laws(evals)
        columns |= {f"powerlaw_{part}": getattr(laws, part) for part in ("alpha", "xmin", "ks", "sigma")}
        columns["powerlaw_tail"] = np.where(laws.tail > 0, laws.tail, np.nan)
        sums = [_log_power_sum(e, alpha) for e, alpha in zip(evals, laws.alpha, strict=True)]
        columns["log_alpha_norm"] = np.array(sums)
        columns["alpha_weighted"] = laws.alpha * log_top
    if "truncated" in fits:
        etpl, exp = fit_truncated(evals)
        columns |= {"etpl_alpha": etpl.alpha, "etpl_lambda": etpl.lam, "etpl_xmin": etpl.xmin, "etpl_ks": etpl.ks}
        columns |= {"exp_lambda": exp.lam, "exp_xmin": exp.xmin, "exp_ks": exp.ks}
    return pd.DataFrame(columns, index=range(len(evals)))


def _log_power_sum(evals: np.ndarray, alpha: float) -> float:
    """log10 of sum lambda^alpha, also where lambda_max^alpha is too large for a float."""
    if math.isnan(alpha):
        return math.nan
    top = float(evals[-1])
    with np.errstate(under="ignore"):
        return alpha * math.log10(top) + math.log10(float(((evals / top) ** alpha).sum()))


def _averaged(layers: pd.DataFrame, spectra: list[LayerSpectra], permutations: int) -> SpectralMetrics:
    """Means over counted layers; the random distances from their values a permutation."""
    stderr: dict[str, float] = {}
    floor: dict[str, float] = {}
    values: dict[str, float] = {}
    if permutations:
        both = summarised(layers[list(ABOUT)], spectra)
        for name, result in zip(RANDOM, (both.distance, both.divergence), strict=True):
            values[name], stderr[name], floor[name] = result.value, result.stderr, result.noise_floor
            layers[name] = result.layers["value"]
            for part in ("stderr", "noise_floor"):
                layers[f"{name}_{part}"] = result.layers[part]
    beside = {f"{name}_{part}" for name in RANDOM for part in ("stderr", "noise_floor")}
    counted = layers.loc[layers["counted"]]
    for name in layers.columns:
        if name not in values and name not in ABOUT and name not in beside:
            values[name] = float(counted[name].mean())  # leaves NaN out
    return SpectralMetrics(values, stderr, floor, layers)


def _checked_fits(fits: bool | Iterable[str]) -> set[str]:
    wanted = set(FITS) if fits is True else set() if fits is False else {fits} if isinstance(fits, str) else set(fits)
    if wanted - set(FITS):
        raise ValueError(f"fits is True, False or some of {', '.join(FITS)}: got {sorted(wanted - set(FITS))}")
    return wanted
