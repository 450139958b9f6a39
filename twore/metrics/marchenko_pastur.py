"""The random bulk of a spectrum: a Marchenko-Pastur law fitted to its density, as WeightWatcher 0.7.7's `mp_fit=True`.

Eigenvalues are scaled to mean 1; a triangular kernel of half-width 0.1 gives their density at 1,000 points; sigma is
what brings the law nearest to it in the least-squares sense (for square matrices: the quarter-circle law and singular
values). The bulk ends at lambda_plus = sigma^2 (1 + 1 / sqrt(Q))^2; mp_softrank is lambda_plus / lambda_max, 1 or so
for random weights and near 0 where a few directions stand out.
Letters: E eigenvalues, G points, S sigmas, Q = N / M >= 1 of an (N, M) matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BANDWIDTH = 0.1  # of the kernel, in mean eigenvalues; this and the next five: WeightWatcher 0.7.7
POINTS = 1000  # where the density is taken, from 0 to MARGIN beyond the largest
MARGIN = 0.5
FLOOR = 0.01  # density under which a point does not count
GRID = (0.05, 2.0, 0.01)  # sigmas tried: from, to, step, in units of the sigma that puts lambda_plus at lambda_max
ZOOMS = (
    (5, 201),
    (1, 41),
    (1, 41),
)  # then so many steps to both sides of the best, so many points; our choice: the sum
# of squares has several minima for small matrices, and WeightWatcher's simplex search sometimes ends in a lesser one


@dataclass(frozen=True)
class Bulk:
    """sigma: of the law, for eigenvalues of mean 1; softrank: lambda_plus / lambda_max; spikes: eigenvalues beyond the
    bulk and its Tracy-Widom margin. All NaN where no sigma fits: the density has its peak where no law has one."""

    sigma: float
    softrank: float
    spikes: float


NO_BULK = Bulk(math.nan, math.nan, math.nan)


def fit_bulk(evals: np.ndarray, rows: int, columns: int) -> Bulk:
    """The bulk of the eigenvalues (E,) of one matrix, or pooled of several of one shape: rows x columns.

    >>> noise = np.random.default_rng(0).normal(size=(400, 100))
    >>> fit_bulk(np.linalg.svd(noise, compute_uv=False) ** 2, 400, 100).spikes
    0.0
    """
    total, largest, smaller = float(evals.sum()), float(evals.max(initial=0.0)), min(rows, columns)
    if not total > 0 or not math.isfinite(total):
        return NO_BULK
    scaled, q = evals * (len(evals) / total), max(rows, columns) / smaller
    top = largest * (len(evals) / total)
    if q == 1:
        x, density = _density(np.sqrt(scaled))
        circle = np.sqrt(np.maximum(4 - x * x, 0.0))  # times 1 / (pi sigma^2): least squares in closed form
        overlap = float((circle * density).sum())
        if not overlap > 0:
            return NO_BULK
        sigma = math.sqrt(float((circle * circle).sum()) / overlap / math.pi)
    else:
        x, density = _density(scaled)
        sigma = _nearest_law(x, density, q, math.sqrt(top) / (1 + q**-0.5))
    edge = (sigma * (1 + q**-0.5)) ** 2
    margin = math.sqrt(q**-0.5 * edge ** (2 / 3) * smaller ** (-2 / 3))
    spikes = float((scaled > edge + margin).sum())
    return NO_BULK if math.isnan(sigma) else Bulk(sigma, edge / top, spikes)


def _density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points that count, and the triangular kernel's density there. (E,) -> (G,), (G,)"""
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    x = np.linspace(0, ordered[-1] + MARGIN, POINTS)
    left, mid, right = (np.searchsorted(ordered, x + shift) for shift in (-BANDWIDTH, 0.0, BANDWIDTH))
    # sum of 1 - |x - v| / h over the values v within h, those below x and those above it
    below = (mid - left) * (1 - x / BANDWIDTH) + (sums[mid] - sums[left]) / BANDWIDTH
    above = (right - mid) * (1 + x / BANDWIDTH) - (sums[right] - sums[mid]) / BANDWIDTH
    density = (below + above) / (len(ordered) * BANDWIDTH)
    counts = density > FLOOR
    return x[counts], density[counts]


def _nearest_law(x: np.ndarray, density: np.ndarray, q: float, unit: float) -> float:
    """sigma of the Marchenko-Pastur law nearest to the density; NaN when none has its support around the peak."""
    low, high, step = (part * unit for part in GRID)
    sigmas = np.arange(low, high, step)
    distance = _distances(x, density, q, sigmas)
    best = int(distance.argmin())
    if not math.isfinite(distance[best]):
        return math.nan
    for reach, points in ZOOMS:
        sigmas = np.linspace(sigmas[best] - reach * step, sigmas[best] + reach * step, points)
        step = float(sigmas[1] - sigmas[0])
        best = int(_distances(x, density, q, sigmas).argmin())
    return float(sigmas[best])


def _distances(x: np.ndarray, density: np.ndarray, q: float, sigmas: np.ndarray) -> np.ndarray:
    """Sums of squares between laws and density; inf where the peak, or the largest point, is on the wrong side. (S,)"""
    peak = x[density.argmax()]
    upper, lower = (sigmas * (1 + q**-0.5)) ** 2, (sigmas * (1 - q**-0.5)) ** 2
    fits = (upper >= peak) & (upper <= x[-1]) & (lower <= peak)
    distance = np.full(len(sigmas), np.inf)
    s, a, b = sigmas[fits, None], lower[fits, None], upper[fits, None]
    law = np.sqrt(np.maximum((b - x) * (x - a), 0.0)) * (q / (2 * math.pi * s * s)) / np.maximum(x, 1e-300)
    distance[fits] = ((law - density) ** 2).sum(axis=1)
    return distance
