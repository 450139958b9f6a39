"""Metrics on weights and on pairs of fine-tuned models; every metric is in `METRICS` with unit, range and direction.

`random_distance` (report eq. 2) says when to stop, `model_similarity` (report eq. 1) where the regimes part.
"""

from twore.metrics.divergence import js_distance, js_divergence
from twore.metrics.layers import spectral_weights
from twore.metrics.registry import METRICS, Metric, register
from twore.metrics.similarity import PairAccumulator, agreement, model_similarity, pair_metrics
from twore.metrics.spectrum import (
    SpectralDistance,
    SpectralDistances,
    eigenvalues,
    random_distance,
    random_divergence,
    spectral_distances,
)

__all__ = [
    "METRICS",
    "Metric",
    "PairAccumulator",
    "SpectralDistance",
    "SpectralDistances",
    "agreement",
    "eigenvalues",
    "js_distance",
    "js_divergence",
    "model_similarity",
    "pair_metrics",
    "random_distance",
    "random_divergence",
    "register",
    "spectral_distances",
    "spectral_weights",
]
