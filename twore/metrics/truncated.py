"""Extended truncated power law (E-TPL) and exponential (EXP) fits to spectra: many layers and cuts xmin at once.

E-TPL: p(x) ~ x^-alpha e^(-lambda x) for x >= xmin, alpha >= 0, lambda >= 0; EXP is its end alpha = 0, a power law its
end lambda = 0. Yang et al. 2023 (arXiv 2202.02842) found E-TPL's lambda and EXP's lambda the best predictors of the
quality of translation models among such metrics. xmin is sought where the histogram of ln x has its peak
(WeightWatcher's `fix_fingers="xmin_peak"`) and taken by Kolmogorov-Smirnov distance, for each family on its own.

The likelihood is that of an exponential family, so it has one maximum: at an end, which its slope there tells, or
inside, where Newton steps find it. With u = x / xmin, z = lambda xmin, t = ln u and means over the tail, its logarithm
is -alpha mean(t) - z mean(u - 1) - ln Z, Z = integral from 0 of exp((1 - alpha) t - z (e^t - 1)) dt.
Letters: L spectra, C candidates for xmin in all spectra together, K nodes of a quadrature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twore.metrics.powerlaw import THRESHOLD, ragged

BINS = 100  # of the histogram of log10 x; WeightWatcher 0.7.7
# Times the peak: where xmin is sought. WeightWatcher 0.7.7's constants, but it takes log10 of the first, so that nearly
# every smaller eigenvalue is tried too
AROUND_PEAK = (0.95, 1.5)
CUT = 37.0  # the integrand beyond e^-37 of its largest value is left out: float64 has no digits there
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)  # 1e-10 or better over the range of spectra; tests compare
CELLS = 192  # of the grid on which a CDF is interpolated: errors of some 1e-6, our choice
STEPS = 80  # Newton steps at most, halvings included; some 8 are usual
DECREMENT = 1e-20  # of the log-likelihood an eigenvalue, where a search ends: parameters right to some nine digits
CHUNK = 2048  # candidates at once: arrays of 1 MB; our choice


@dataclass(frozen=True, eq=False)
class TailFits:
    """One fit a spectrum; every field (L,), NaN where a spectrum has no tail to fit.

    alpha   exponent, >= 0; for EXP 0
    lam     lambda, >= 0, in units of 1 / eigenvalue
    xmin    the smallest eigenvalue of the tail
    ks      Kolmogorov-Smirnov distance between fit and tail, in [0, 1]
    """

    alpha: np.ndarray
    lam: np.ndarray
    xmin: np.ndarray
    ks: np.ndarray


def fit_truncated(spectra: Sequence[np.ndarray], *, threshold: float = THRESHOLD) -> tuple[TailFits, TailFits]:
    """(E-TPL, EXP) of each spectrum (arrays of eigenvalues, any order). Eigenvalues up to `threshold` are left out.

    >>> x = 1 - np.log(1 - np.arange(4000) / 4000) / 2  # quantiles of e^(-2 x), x >= 1
    >>> fit_truncated([x])[1].lam.round(1).tolist()
    [2.0]
    """
    etpl, exp = (TailFits(*np.full((4, len(spectra)), np.nan)) for _ in range(2))
    logs, first, n, layer = _candidates(spectra, threshold)
    for start in range(0, len(first), CHUNK):
        part = slice(start, start + CHUNK)
        tails = _Tails(logs, first[part], n[part])
        alpha, z = maximum_likelihood(tails.mean_t, tails.mean_v)
        _keep_best(etpl, layer[part], tails, alpha, z)
        _keep_best(exp, layer[part], tails, np.zeros_like(z), 1 / tails.mean_v)
    return etpl, exp


def maximum_likelihood(mean_t: np.ndarray, mean_v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha >= 0 and z = lambda xmin >= 0 of largest likelihood for tails with these means of ln u and u - 1. (C,) each

    mean_t lies in (0, ln(1 + mean_v)): a tail of equal eigenvalues has no fit.
    """
    alpha, z = np.zeros_like(mean_t), 1 / mean_v  # the end alpha = 0
    inside = moments(alpha, z)[1] > mean_t  # the likelihood rises from it
    with np.errstate(divide="ignore"):
        pure = 1 + 1 / mean_t  # the end lambda = 0
        ends = inside & (pure > 2) & (1 / (pure - 2) <= mean_v)
    alpha[ends], z[ends] = pure[ends], 0.0
    at = np.flatnonzero(inside & ~ends)
    alpha[at], z[at] = _newton(mean_t[at], mean_v[at])
    return alpha, z


def moments(alpha: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
    """ln Z, and the means of t, v, t^2, t v, v^2 with v = u - 1, of fits with z > 0. (C,) each"""
    end = _end(alpha, z)
    t = 0.5 * end * (NODES[:, None] + 1)  # (K, C)
    v = np.expm1(t)
    height = (1 - alpha) * t - z * v
    top = height.max(axis=0)
    height -= top
    mass = np.exp(height, out=height)
    mass *= 0.5 * WEIGHTS[:, None] * end
    total = mass.sum(axis=0)
    mass /= total
    mt, mv = mass * t, mass * v
    means = (mt.sum(0), mv.sum(0), (mt * t).sum(0), (mt * v).sum(0), (mv * v).sum(0))
    return (np.log(total) + top, *means)


def cumulative(alpha: np.ndarray, z: np.ndarray, t: np.ndarray, row: np.ndarray) -> np.ndarray:
    """CDF of fit `row` (of C) at ln(x / xmin) = t. (C,), (C,), (N,), (N,) -> (N,)"""
    out = np.empty_like(t)
    a, zz = alpha[row], z[row]
    power, plain = zz == 0, (a == 0) & (zz > 0)
    out[power] = -np.expm1((1 - a[power]) * t[power])
    out[plain] = -np.expm1(-zz[plain] * np.expm1(t[plain]))
    both = ~(power | plain)
    if both.any():
        used, which = np.unique(row[both], return_inverse=True)
        out[both] = _interpolated(alpha[used], z[used], t[both], which)
    return out


class _Tails:
    """Candidates' tails: first eigenvalue's place in logs, size, and the means that the likelihood needs. (C,) each"""

    def __init__(self, logs: np.ndarray, first: np.ndarray, n: np.ndarray) -> None:
        self.n, self.first_log = n, logs[first]
        self.start, self.row, self.place = ragged(n)
        self.t = logs[first[self.row] + self.place] - self.first_log[self.row]
        self.mean_t = np.add.reduceat(self.t, self.start) / n
        self.mean_v = np.add.reduceat(np.expm1(self.t), self.start) / n


def _candidates(
    spectra: Sequence[np.ndarray], threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sorted logs of all spectra end to end, and each candidate's first place there, tail size and spectrum."""
    logs, firsts, ns, layers, offset = [np.zeros(0)], [], [], [], 0
    for layer, spectrum in enumerate(spectra):
        log = np.log(np.sort(spectrum[spectrum > threshold]).astype(np.float64))
        if len(log) > 1 and log[-1] > log[0]:
            width = (log[-1] - log[0]) / BINS
            counts = np.bincount(np.minimum((log - log[0]) / width, BINS - 1).astype(np.int64))
            low, high = log[0] + counts.argmax() * width + np.log(AROUND_PEAK)
            at = np.arange(*np.searchsorted(log, (low, high), side="left"))
            at = at[log[at] < log[-1]]  # the tail has two different eigenvalues or more
            firsts.append(offset + at)
            ns.append(len(log) - at)
            layers.append(np.full(len(at), layer))
        logs.append(log)
        offset += len(log)
    none = [np.zeros(0, dtype=np.int64)]
    return np.concatenate(logs), *(np.concatenate(parts or none) for parts in (firsts, ns, layers))  # type: ignore


def _keep_best(fits: TailFits, layer: np.ndarray, tails: _Tails, alpha: np.ndarray, z: np.ndarray) -> None:
    """Enter each spectrum's candidate of smallest KS distance, if it is smaller than the one kept."""
    steps = tails.place / tails.n[tails.row]  # 0, 1 / n, ...: as WeightWatcher's
    gap = np.abs(cumulative(alpha, z, tails.t, tails.row) - steps)
    ks = np.maximum.reduceat(gap, tails.start)
    order = np.lexsort((ks, layer))
    leaders, where = np.unique(layer[order], return_index=True)
    for spectrum, c in zip(leaders, order[where], strict=True):
        if not fits.ks[spectrum] <= ks[c]:
            xmin = np.exp(tails.first_log[c])
            fits.alpha[spectrum], fits.lam[spectrum] = alpha[c], z[c] / xmin
            fits.xmin[spectrum], fits.ks[spectrum] = xmin, ks[c]


def _newton(mean_t: np.ndarray, mean_v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maximum inside alpha > 0, z > 0, from the end alpha = 0; a step that loses likelihood is halved."""
    alpha, z = np.zeros_like(mean_t), 1 / mean_v
    value = np.full_like(mean_t, -np.inf)
    step_a, step_z = np.zeros_like(alpha), np.zeros_like(z)
    active = np.arange(len(mean_t))
    for _ in range(STEPS):
        if not len(active):
            break
        t, v = mean_t[active], mean_v[active]
        a, zz = alpha[active] + step_a[active], z[active] + step_z[active]
        log_z, et, ev, ett, etv, evv = moments(a, zz)
        here = -a * t - zz * v - log_z
        good = here >= value[active] - 1e-13
        kept = active[good]
        alpha[kept], z[kept], value[kept] = a[good], zz[good], here[good]
        step_a[active[~good]] /= 2
        step_z[active[~good]] /= 2
        # Newton: slope (et - t, ev - v), curvature -covariance
        ga, gz = (et - t)[good], (ev - v)[good]
        caa, caz, czz = (ett - et * et)[good], (etv - et * ev)[good], (evv - ev * ev)[good]
        determinant = np.maximum(caa * czz - caz * caz, 1e-300)
        da, dz = (czz * ga - caz * gz) / determinant, (caa * gz - caz * ga) / determinant
        # at most nine tenths of the way to a border of alpha > 0, z > 0; from alpha = 0 it can only rise
        with np.errstate(divide="ignore", invalid="ignore"):
            room_a = np.where((da < 0) & (alpha[kept] > 0), -0.9 * alpha[kept] / da, np.inf)
            room_z = np.where(dz < 0, -0.9 * z[kept] / dz, np.inf)
        share = np.minimum(1.0, np.minimum(room_a, room_z))
        step_a[kept], step_z[kept] = share * np.where((alpha[kept] > 0) | (da > 0), da, 0.0), share * dz
        done = np.zeros(len(active), dtype=bool)
        done[good] = ga * da + gz * dz < DECREMENT
        active = active[~done]
    return alpha, z


def _end(alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
    """t beyond which the integrand of Z, at alpha >= 0, is less than e^-CUT of its largest value. (C,)"""
    with np.errstate(divide="ignore"):
        power = np.where(alpha > 1, CUT / (alpha - 1), np.inf)
        k = np.where(alpha < 1, CUT / (1 - alpha), np.inf)
        peak = np.where(alpha < 1, np.log(np.maximum((1 - alpha) / z, 1.0)), 0.0)
        # past its peak the integrand's logarithm falls as (1 - alpha)(e^d - 1 - d), which is CUT at or before this d
        rest = np.where(peak > 0, peak + np.minimum(np.sqrt(2 * k), np.log(k + 2 + 2 * np.log1p(k))), np.inf)
    return np.minimum(power, np.minimum(rest, np.where(peak > 0, np.inf, np.log1p(CUT / z))))


def _interpolated(alpha: np.ndarray, z: np.ndarray, t: np.ndarray, row: np.ndarray) -> np.ndarray:
    """CDF by cubics between the points of a grid: slopes are the density, sums by the corrected trapezoid rule."""
    cell = _end(alpha, z) / CELLS
    grid = cell[:, None] * np.arange(CELLS + 1)  # (C, CELLS + 1)
    height = (1 - alpha)[:, None] * grid - z[:, None] * np.expm1(grid)
    density = np.exp(height - height.max(axis=1, keepdims=True))
    slope = density * ((1 - alpha)[:, None] - z[:, None] * np.exp(grid))
    h = cell[:, None]
    pieces = h / 2 * (density[:, 1:] + density[:, :-1]) + h * h / 12 * (slope[:, :-1] - slope[:, 1:])
    sums = np.concatenate([np.zeros((len(alpha), 1)), np.cumsum(pieces, axis=1)], axis=1)
    at = np.minimum((t / cell[row]).astype(np.int64), CELLS - 1)
    s = np.minimum(t / cell[row] - at, 1.0)  # beyond the grid's end: all of it
    low, high = sums[row, at], sums[row, at + 1]
    d0, d1 = density[row, at] * cell[row], density[row, at + 1] * cell[row]
    rise = high - low
    value = low + s * (d0 + s * (3 * rise - 2 * d0 - d1 + s * (d0 + d1 - 2 * rise)))
    return value / sums[row, -1]
