"""Power-law fits to spectra: alpha with the cut xmin chosen by Kolmogorov-Smirnov distance, for many layers at once.

The tail x >= xmin of a spectrum is fitted by p(x) ~ x^-alpha. Every eigenvalue is tried as xmin; with n eigenvalues at
or above it, alpha = 1 + n / sum ln(x / xmin) (Clauset, Shalizi and Newman 2009, eq. 3.1), and the xmin with the
smallest KS distance between fit and tail is taken. This is WeightWatcher 0.7.7's fit, with its variant for spectra of
fewer than 20 eigenvalues: n - 1 in place of n, and tails of 8 or more.
Letters: L spectra, C candidates for xmin in all spectra together, K points a candidate, n eigenvalues of a tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLD = 1e-5  # eigenvalues up to this count as zero, whatever the layer's scale; WeightWatcher 0.7.7
SMALL = 20  # spectra with fewer eigenvalues take the bias-corrected estimate; WeightWatcher 0.7.7
SMALL_TAIL = 8  # eigenvalues a tail of such a spectrum keeps at least; WeightWatcher 0.7.7
MIN_LOG_SUM = 1e-12  # of ln(x / xmin): a tail of equal eigenvalues has no exponent; WeightWatcher 0.7.7 (small spectra)
POINTS = 12  # of a tail, for the first bound on its KS distance; our choice
TRIED_FIRST = 4  # candidates a spectrum whose exact distance tells which others still matter; our choice
CHUNK = 8192  # candidates at once: arrays of some 2 MB; our choice


@dataclass(frozen=True, eq=False)
class PowerLaws:
    """One fit a spectrum; every field (L,), NaN (tail: 0) where a spectrum has no tail to fit.

    alpha  exponent, > 1
    xmin   the smallest eigenvalue of the tail
    ks     Kolmogorov-Smirnov distance between fit and tail, in [0, 1]
    sigma  standard error of alpha, (alpha - 1) / sqrt(n)
    tail   n, the eigenvalues of the tail
    """

    alpha: np.ndarray
    xmin: np.ndarray
    ks: np.ndarray
    sigma: np.ndarray
    tail: np.ndarray


def fit_power_laws(spectra: Sequence[np.ndarray], *, threshold: float = THRESHOLD) -> PowerLaws:
    """The power law of each spectrum (arrays of eigenvalues, any order): WeightWatcher's `alpha`, `xmin`, `D`, `sigma`.

    Eigenvalues up to `threshold` are left out; of fewer than two, or of equal ones, there is no fit (NaN).

    >>> x = (1 - np.arange(1000) / 1000) ** -0.5  # quantiles of x^-3
    >>> fit_power_laws([x]).alpha.round(1).tolist()
    [3.0]
    """
    best = [np.full(len(spectra), np.nan) for _ in range(3)]  # alpha, xmin, ks
    tail = np.zeros(len(spectra), dtype=np.int64)
    for part in _parts(spectra):
        logs = [np.log(np.sort(spectra[k][spectra[k] > threshold]).astype(np.float64)) for k in part]
        fitted = [(k, log) for k, log in zip(part, logs, strict=True) if len(log) > 1]
        if not fitted:
            continue
        owners, kept = zip(*fitted, strict=True)
        which = np.array(owners)
        first, n, alpha, layer = _candidates(kept)
        chosen, ks = _smallest_ks(np.concatenate(kept), first, n, alpha, layer, len(kept))
        found = chosen >= 0
        at = chosen[found]
        best[0][which[found]], best[2][which[found]] = alpha[at], ks[found]
        best[1][which[found]] = np.exp(np.concatenate(kept)[first[at]])
        tail[which[found]] = n[at]
    with np.errstate(divide="ignore", invalid="ignore"):
        return PowerLaws(best[0], best[1], best[2], (best[0] - 1) / np.sqrt(tail), tail)


def ragged(length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of unequal length laid end to end: each row's start (C,), each element's row and place in it (total,)."""
    start = np.cumsum(length) - length
    row = np.repeat(np.arange(len(length)), length)
    return start, row, np.arange(len(row)) - start[row]


def _parts(spectra: Sequence[np.ndarray]) -> list[list[int]]:
    """Numbers of the spectra, cut so that a part holds about CHUNK eigenvalues."""
    parts: list[list[int]] = [[]]
    held = 0
    for k, spectrum in enumerate(spectra):
        if held and held + spectrum.size > CHUNK:
            parts.append([])
            held = 0
        parts[-1].append(k)
        held += spectrum.size
    return parts


def _candidates(logs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every tail that may be fitted: its first eigenvalue's place in the concatenated logs, n, alpha, spectrum. (C,)"""
    firsts, ns, alphas, layers, offset = [], [], [], [], 0
    for layer, log in enumerate(logs):
        size = len(log)
        n = np.arange(size, 1, -1)
        # sum of ln(x / xmin) over the tail, from its end: no cancellation with the sum of the whole spectrum
        sums = np.cumsum((log - log[-1])[::-1])[:0:-1] - n * (log[:-1] - log[-1])
        allowed = sums > MIN_LOG_SUM
        if size < SMALL:
            allowed &= n >= min(SMALL_TAIL, size)
        at = np.flatnonzero(allowed)
        firsts.append(offset + at)
        ns.append(n[at])
        alphas.append(1 + (n[at] - (size < SMALL)) / sums[at])
        layers.append(np.full(len(at), layer))
        offset += size
    return tuple(np.concatenate(parts) for parts in (firsts, ns, alphas, layers))  # type: ignore[return-value]


def _smallest_ks(
    logs: np.ndarray, first: np.ndarray, n: np.ndarray, alpha: np.ndarray, layer: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each spectrum's candidate of smallest KS distance (-1: none) and that distance. (C,)... -> (count,), (count,)

    The distance at POINTS of a tail bounds the distance from below, so that only candidates whose bound lies under a
    distance already found are compared in full: the result is that of comparing all of them.
    """
    bound = _ks_at_points(logs, first, n, alpha)
    start = np.searchsorted(layer, np.arange(count + 1))
    tried = np.concatenate(
        [
            a + np.argpartition(bound[a:b], TRIED_FIRST)[:TRIED_FIRST] if b - a > TRIED_FIRST else np.arange(a, b)
            for a, b in zip(start[:-1], start[1:], strict=True)
        ]
        or [np.zeros(0, dtype=np.int64)]
    )
    upper = np.full(count, np.inf)
    np.minimum.at(upper, layer[tried], ks_in_full(logs, first[tried], n[tried], alpha[tried]))
    open_ones = np.flatnonzero(bound <= upper[layer])
    exact = ks_in_full(logs, first[open_ones], n[open_ones], alpha[open_ones])
    order = np.lexsort((open_ones, exact, layer[open_ones]))  # a spectrum's smallest first, the earliest xmin of equals
    leaders, where = np.unique(layer[open_ones][order], return_index=True)
    chosen, ks = np.full(count, -1), np.full(count, np.nan)
    chosen[leaders], ks[leaders] = open_ones[order[where]], exact[order[where]]
    return chosen, ks


def _ks_at_points(logs: np.ndarray, first: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A lower bound of each candidate's KS distance, from POINTS eigenvalues spread over its tail. (C,)... -> (C,)"""
    place = (np.linspace(0, 1, POINTS)[:, None] * (n - 1)).astype(np.int64)  # (K, C)
    gap = logs[first + place] - logs[first]
    return _gap_to_steps(gap, place, n, alpha).max(axis=0)


def ks_in_full(logs: np.ndarray, first: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """max |1 - (x / xmin)^(1 - alpha) - k / n| over the tail, k = 0 ... n - 1: WeightWatcher's `D`. (C,)... -> (C,)"""
    if not len(first):
        return np.zeros(0)
    start, row, place = ragged(n)
    gap = logs[first[row] + place] - logs[first][row]
    return np.maximum.reduceat(_gap_to_steps(gap, place, n[row], alpha[row]), start)


def _gap_to_steps(gap: np.ndarray, place: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """|fitted CDF - steps| where ln(x / xmin) = gap; the steps are WeightWatcher's, place / n. Overwrites `gap`."""
    gap *= 1 - alpha
    np.exp(gap, out=gap)
    gap += place / n
    gap -= 1
    return np.abs(gap, out=gap)
