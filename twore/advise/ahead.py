"""Pilots that win clearly: how far a pick is ahead of the final checkpoint may tell good picks from bad.

A pilot's pick that beats the final checkpoint by little may owe that to its one fine-tune seed. So the picks of a band
are told apart by a line in points, where such a line foretells hits better than one share for all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

POINTS = (1.0, 2.0, 3.0, 5.0)  # ahead of the final checkpoint, tried as the line; our choice
PRIOR = 2.0  # picks' worth of the level's overall share that is mixed into each share; our choice


def beyond(rows: pd.DataFrame, line: float) -> np.ndarray:
    """Which picks are so far ahead, (N,) bool; those compared with no final checkpoint are not. rows: `Trial.rows`."""
    return rows["ahead"].to_numpy(float) >= line


def best_line(rows: pd.DataFrame, overall: float, *, fewest: int) -> float | None:
    """The line of POINTS that foretells best which picks hit, by the Brier score with each cluster left out in turn.

    rows: of one band, with cluster, hit, ahead (points). overall: the level's share of hits, in [0, 1]. fewest:
    clusters that each side of a line has to have. None where no line does better than one share for all; the least of
    equals else, points.
    """
    able = [
        line
        for line in POINTS
        if min(rows.loc[side, "cluster"].nunique() for side in (beyond(rows, line), ~beyond(rows, line))) >= fewest
    ]
    scores = {line: _brier(rows, beyond(rows, line), overall) for line in (np.inf, *able)}
    best = min(scores, key=lambda line: round(scores[line], 9))  # the first of equals, which is one share for all
    return None if np.isinf(best) else best


def _brier(rows: pd.DataFrame, far: np.ndarray, overall: float) -> float:
    """Of the share of hits on each side, (N,) bool, with the cluster that is judged left out."""
    sums = rows.groupby([far, rows["cluster"].to_numpy()])["hit"].agg(["sum", "size"])
    total = 0.0
    for _, side in sums.groupby(level=0):
        hits, numbers = side.to_numpy(float).T  # by cluster
        share = (hits.sum() - hits + PRIOR * overall) / (numbers.sum() - numbers + PRIOR)
        total += float((hits * (1 - share) ** 2 + (numbers - hits) * share**2).sum())
    return total / len(rows)
