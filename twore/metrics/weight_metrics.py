"""Each spectral metric as a function of the weights, entered in METRICS; `spectral_metrics` gives all at one's cost.

Every one is the mean of a column of `spectral_metrics(...).layers` over counted layers; formulas stand in spectra.py
and in the module named. Where no layer is counted, or none has a fit, the value is NaN. Options and errors are those of
`spectral_metrics`. `better` follows the literature on well trained networks (Martin, Peng and Mahoney 2021; Yang et al.
2023), which says nothing about pruning: heavier tails, smaller alpha and lambda.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch

from twore.metrics.layers import KINDS, Weights
from twore.metrics.registry import register
from twore.metrics.spectra import spectral_metrics
from twore.metrics.spectrum import MIN_EVALS, PERMUTATIONS

INF = math.inf
Device = torch.device | str | None
Names = Iterable[str] | None

_spectral = partial(register, takes="weights", cost="one symmetric eigenvalue problem a weight matrix; no data")
_fitted = partial(_spectral, cost="one symmetric eigenvalue problem a weight matrix, and a fit a layer; no data")


@_spectral(
    "stable_rank",
    unit="eigenvalues",
    low=1.0,
    high=INF,
    better="none",
    source="sum of eigenvalues / largest (Rudelson and Vershynin 2007); WeightWatcher's stable_rank",
)
def stable_rank(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Sum of a layer's eigenvalues over the largest: 1 for one direction, the smaller side for orthogonal rows."""
    return _mean("stable_rank", model_or_mapping, False, min_evals, kinds, layers, device)


@_spectral(
    "log_norm",
    unit="log10",
    low=-INF,
    high=INF,
    better="none",
    source="log10 of the squared Frobenius norm; WeightWatcher's log_norm",
)
def log_norm(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """log10 of the sum of a layer's eigenvalues, its squared Frobenius norm (of a convolution: half of it)."""
    return _mean("log_norm", model_or_mapping, False, min_evals, kinds, layers, device)


@_spectral(
    "log_spectral_norm",
    unit="log10",
    low=-INF,
    high=INF,
    better="none",
    source="log10 of the squared spectral norm; WeightWatcher's log_spectral_norm",
)
def log_spectral_norm(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """log10 of a layer's largest eigenvalue, its squared spectral norm (of a convolution: half of it)."""
    return _mean("log_spectral_norm", model_or_mapping, False, min_evals, kinds, layers, device)


@_spectral(
    "spectral_entropy",
    unit="fraction of ln(rank)",
    low=0.0,
    high=1.0 + 1e-4,
    better="none",
    source="entropy of eigenvalue shares / ln(rank); WeightWatcher's entropy",
)
def spectral_entropy(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Entropy of a layer's eigenvalue shares over its largest possible: 0 for one direction, 1 for equal eigenvalues.

    WeightWatcher adds 1e-10 to every share, which can lift it above 1 by rounding.
    """
    return _mean("spectral_entropy", model_or_mapping, False, min_evals, kinds, layers, device)


@_fitted(
    "powerlaw_alpha",
    unit="exponent",
    low=1.0,
    high=INF,
    better="low",
    source="Martin and Mahoney 2021; WeightWatcher's alpha",
)
def powerlaw_alpha(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Exponent of the power law fitted to the tail of a layer's eigenvalues (powerlaw.py): smaller is heavier."""
    return _mean("powerlaw_alpha", model_or_mapping, "powerlaw", min_evals, kinds, layers, device)


@_fitted(
    "powerlaw_ks",
    unit="fraction",
    low=0.0,
    high=1.0,
    better="low",
    source="Clauset, Shalizi and Newman 2009; WeightWatcher's D",
)
def powerlaw_ks(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Kolmogorov-Smirnov distance between that power law and the tail: 0 for a perfect fit (powerlaw.py)."""
    return _mean("powerlaw_ks", model_or_mapping, "powerlaw", min_evals, kinds, layers, device)


@_fitted(
    "alpha_weighted",
    unit="log10",
    low=-INF,
    high=INF,
    better="low",
    source="Martin, Peng and Mahoney 2021 (alpha-hat); WeightWatcher's alpha_weighted",
)
def alpha_weighted(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """powerlaw_alpha times log10 of the largest eigenvalue, layer by layer."""
    return _mean("alpha_weighted", model_or_mapping, "powerlaw", min_evals, kinds, layers, device)


@_fitted(
    "log_alpha_norm",
    unit="log10",
    low=-INF,
    high=INF,
    better="low",
    source="Martin, Peng and Mahoney 2021; WeightWatcher's log_alpha_norm",
)
def log_alpha_norm(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """log10 of the sum of a layer's eigenvalues to the power powerlaw_alpha."""
    return _mean("log_alpha_norm", model_or_mapping, "powerlaw", min_evals, kinds, layers, device)


@_fitted(
    "etpl_alpha",
    unit="exponent",
    low=0.0,
    high=INF,
    better="low",
    source="Yang et al. 2023 (E_TPL_beta); p(x) ~ x^-alpha e^(-lambda x)",
)
def etpl_alpha(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Exponent of the extended truncated power law (truncated.py): 0 where an exponential fits better."""
    return _mean("etpl_alpha", model_or_mapping, "truncated", min_evals, kinds, layers, device)


@_fitted(
    "etpl_lambda",
    unit="1 / eigenvalue",
    low=0.0,
    high=INF,
    better="low",
    source="Yang et al. 2023 (E_TPL_lambda); p(x) ~ x^-alpha e^(-lambda x)",
)
def etpl_lambda(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Rate of the extended truncated power law (truncated.py): 0 for a pure power law, the heaviest tail."""
    return _mean("etpl_lambda", model_or_mapping, "truncated", min_evals, kinds, layers, device)


@_fitted("etpl_ks", unit="fraction", low=0.0, high=1.0, better="low", source="Yang et al. 2023 (E_TPL_KS_distance)")
def etpl_ks(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Kolmogorov-Smirnov distance between the extended truncated power law and the eigenvalues above its xmin."""
    return _mean("etpl_ks", model_or_mapping, "truncated", min_evals, kinds, layers, device)


@_fitted(
    "exp_lambda",
    unit="1 / eigenvalue",
    low=0.0,
    high=INF,
    better="low",
    source="Yang et al. 2023 (EXP_lambda); p(x) ~ e^(-lambda x)",
)
def exp_lambda(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Rate of the exponential fitted above xmin, 1 / (mean - xmin) (truncated.py)."""
    return _mean("exp_lambda", model_or_mapping, "truncated", min_evals, kinds, layers, device)


@_fitted("exp_ks", unit="fraction", low=0.0, high=1.0, better="low", source="as etpl_ks, for the exponential")
def exp_ks(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Kolmogorov-Smirnov distance between that exponential and the eigenvalues above its xmin (truncated.py)."""
    return _mean("exp_ks", model_or_mapping, "truncated", min_evals, kinds, layers, device)


@_fitted(
    "mp_softrank",
    unit="fraction",
    low=0.0,
    high=INF,
    better="low",
    source="Martin and Mahoney 2021; WeightWatcher's mp_softrank (mp_fit=True)",
)
def mp_softrank(
    model_or_mapping: Weights,
    *,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Upper edge of the fitted random bulk over the largest eigenvalue: about 1 for random weights."""
    return _mean("mp_softrank", model_or_mapping, "bulk", min_evals, kinds, layers, device)


@partial(register, takes="weights", cost="P + 1 symmetric eigenvalue problems a weight matrix; no data")(
    "ww_softrank",
    unit="fraction",
    low=0.0,
    high=INF,
    better="low",
    source="WeightWatcher's ww_softrank (randomize=True)",
)
def ww_softrank(
    model_or_mapping: Weights,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    min_evals: int = MIN_EVALS,
    kinds: Iterable[str] = KINDS,
    layers: Names = None,
    device: Device = None,
) -> float:
    """Largest eigenvalue of permuted weights (mean over permutations) over the layer's own: 1 for random weights."""
    if permutations == 0:
        raise ValueError("permutations is a whole number, at least 1: got 0")
    result = spectral_metrics(
        model_or_mapping,
        permutations=permutations,
        seed=seed,
        min_evals=min_evals,
        kinds=kinds,
        layers=layers,
        fits=False,
        device=device,
    )
    return result.values["ww_softrank"]


def _mean(
    name: str,
    weights: Weights,
    fits: bool | str,
    min_evals: int,
    kinds: Iterable[str],
    layers: Names,
    device: Device,
) -> float:
    wanted = fits if isinstance(fits, bool) else (fits,)
    result = spectral_metrics(
        weights, permutations=0, fits=wanted, min_evals=min_evals, kinds=kinds, layers=layers, device=device
    )
    return result.values[name]
