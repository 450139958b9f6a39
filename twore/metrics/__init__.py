"""Metrics on weights, between checkpoints, on data and on pairs of fine-tuned models; all are in `METRICS`.

`random_distance` (report eq. 2) says when to stop, `model_similarity` (report eq. 1) where the regimes part; the others
are their rivals. `METRICS` holds each one's unit, range, direction, inputs, source and cost.
"""

from twore.metrics.cka import CkaAccumulator, centred_logits, cka, projected
from twore.metrics.connectivity import Connectivity, loss_barrier, mode_connectivity, score_barrier
from twore.metrics.divergence import js_distance, js_divergence
from twore.metrics.hessian import TraceEstimate, hessian_eigenvalues, hessian_top, hessian_trace
from twore.metrics.layers import spectral_weights
from twore.metrics.registry import METRICS, TAKES, Metric, metrics_taking, register, unregister
from twore.metrics.sharpness import Sharpness, sharpness
from twore.metrics.similarity import PairAccumulator, agreement, model_similarity, pair_metrics
from twore.metrics.spectrum import (
    SpectralDistance,
    SpectralDistances,
    eigenvalues,
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
    "TraceEstimate",
    "agreement",
    "centred_logits",
    "cka",
    "distance_from_init",
    "distance_from_previous",
    "eigenvalues",
    "hessian_eigenvalues",
    "hessian_top",
    "hessian_trace",
    "js_distance",
    "js_divergence",
    "loss_barrier",
    "mask_distance",
    "metrics_taking",
    "mode_connectivity",
    "model_similarity",
    "pair_metrics",
    "projected",
    "prune_perturbation",
    "random_distance",
    "random_divergence",
    "rate_phase",
    "register",
    "score_barrier",
    "sharpness",
    "spectral_distances",
    "spectral_weights",
    "unregister",
]
