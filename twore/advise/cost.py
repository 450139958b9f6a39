"""What the spectra of a model cost, counted from shapes; how many permutations that allows; seconds, measured briefly.

Letters: S slices of a layer (kernel offsets), m and M the shorter and the longer side of a slice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch

from twore.metrics.spectrum import PERMUTATIONS

EIGENVALUES = 4 / 3  # times m^3: reduction of a symmetric matrix to tridiagonal form; Golub and Van Loan, section 8.3
AFFORDABLE = 3e12  # operations a checkpoint: some minutes on one core; our choice
TRIAL, TRIALS = 384, 5  # side of the matrix whose decomposition is timed, and times; the fastest counts


def spectral_operations(shapes: Iterable[tuple[int, ...]]) -> float:
    """Operations of one decomposition of every layer: S times 2 m^2 M (Gram matrix) and 4/3 m^3 (eigenvalues)."""
    total = 0.0
    for shape in shapes:
        m, M = sorted(shape[:2])  # noqa: N806  as in the module's docstring
        total += math.prod(shape[2:]) * (float(m) ** 2 * M * 2 + EIGENVALUES * float(m) ** 3)
    return total


def affordable_permutations(shapes: Iterable[tuple[int, ...]], *, budget: float = AFFORDABLE) -> int:
    """Permutations behind random_distance: as many as the budget allows beside the weights' own spectra, 1 to 10.

    From shapes alone, so that every checkpoint of a run has the same ones on every machine.
    """
    once = spectral_operations(shapes)
    return max(1, min(PERMUTATIONS, int(budget / once) - 1)) if once else PERMUTATIONS


def seconds_of(operations: float) -> float:
    """What so many operations take here, by the time of one small decomposition with this process's threads."""
    matrix = torch.randn(TRIAL, TRIAL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = math.inf
    for _ in range(TRIALS):
        start = time.perf_counter()
        torch.linalg.eigvalsh(matrix.mT @ matrix)
        best = min(best, time.perf_counter() - start)
    return best * operations / spectral_operations([(TRIAL, TRIAL)])


def duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 42 s, 3.5 min, 2.1 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
