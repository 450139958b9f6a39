"""Metrics on weights, between checkpoints, on data and on pairs of fine-tuned models; all are in `METRICS`.

`random_distance` (report eq. 2) says when to stop, `model_similarity` (report eq. 1) where the regimes part; the others
are their rivals. `METRICS` holds each one's unit, range, direction, inputs, source and cost.
"""

from twore.metrics.cka import CkaAccumulator, centred_logits, cka, projected
from twore.metrics.connectivity import Connectivity, loss_barrier, mode_connectivity, score_barrier
from twore.metrics.divergence import js_distance, js_divergence
from twore.metrics.gram import eigenvalues
from twore.metrics.hessian import TraceEstimate, hessian_eigenvalues, hessian_top, hessian_trace
from twore.metrics.layers import spectral_weights
from twore.metrics.registry import METRICS, TAKES, Metric, metrics_taking, register, unregister
from twore.metrics.sharpness import Sharpness, sharpness
from twore.metrics.similarity import PairAccumulator, agreement, model_similarity, pair_metrics
from twore.metrics.spectra import SpectralMetrics, spectral_metrics
from twore.metrics.spectrum import (
    SpectralDistance,
    SpectralDistances,
    random_distance,
    random_divergence,
    spectral_distances,
)
from twore.metrics.trajectory import (
    distance_from_init,
    distance_from_previous,
    mask_distance,
    prune_perturbation,
    rate_phase,
)
from twore.metrics.weight_metrics import (
    alpha_weighted,
    etpl_alpha,
    etpl_ks,
    etpl_lambda,
    exp_ks,
    exp_lambda,
    log_alpha_norm,
    log_norm,
    log_spectral_norm,
    mp_softrank,
    powerlaw_alpha,
    powerlaw_ks,
    spectral_entropy,
    stable_rank,
    ww_softrank,
)

__all__ = [
    "METRICS",
    "TAKES",
    "CkaAccumulator",
    "Connectivity",
    "Metric",
    "PairAccumulator",
    "Sharpness",
    "SpectralDistance",
    "SpectralDistances",
    "SpectralMetrics",
    "TraceEstimate",
    "agreement",
    "alpha_weighted",
    "centred_logits",
    "cka",
    "distance_from_init",
    "distance_from_previous",
    "eigenvalues",
    "etpl_alpha",
    "etpl_ks",
    "etpl_lambda",
    "exp_ks",
    "exp_lambda",
    "hessian_eigenvalues",
    "hessian_top",
    "hessian_trace",
    "js_distance",
    "js_divergence",
    "log_alpha_norm",
    "log_norm",
    "log_spectral_norm",
    "loss_barrier",
    "mask_distance",
    "metrics_taking",
    "mode_connectivity",
    "model_similarity",
    "mp_softrank",
    "pair_metrics",
    "powerlaw_alpha",
    "powerlaw_ks",
    "projected",
    "prune_perturbation",
    "random_distance",
    "random_divergence",
    "rate_phase",
    "register",
    "score_barrier",
    "sharpness",
    "spectral_distances",
    "spectral_entropy",
    "spectral_metrics",
    "spectral_weights",
    "stable_rank",
    "unregister",
    "ww_softrank",
]
