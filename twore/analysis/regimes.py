"""The two regimes, read off the grid of scores: the best epoch of each ratio, and the ratio where stopping early pays.

Report section 6.2: Regime I (light pruning) is where the last checkpoints are the best to prune, Regime II (heavy
pruning) where an earlier one is. `optimal_epochs` gives the red markers of figures 3 and 4, `regime_boundary` the line
between. All scores, gains and regrets are in points of the task's score, higher is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from twore.analysis.grid import average, checked_grids, one_setting, replication

EXACT = 1e-9  # means that differ by less are equal: the rounding of a mean must not decide between epochs
COVERAGE = 0.9  # of the bootstrap interval; our choice


@dataclass(frozen=True, eq=False)
class RegimeBoundary:
    """The line between the regimes on the axis of prune ratios.

    lower: the heaviest ratio below the line (Regime I); None when the lightest ratio already gains.
    upper: the lightest ratio where stopping early gains at least `min_gain` (Regime II); None when no ratio does.
    interval: 90 % bootstrap range of `upper`, ends are ratios of the grid, 1.0 standing for "no ratio of the grid";
        None without two seeds, or with resamples=0.
    gains: best minus last checkpoint, points, indexed by ratio; NaN where the last checkpoint was not run.
    units: what was resampled, "dense" or "finetune" seeds; None with one seed.
    """

    lower: float | None
    upper: float | None
    interval: tuple[float, float] | None
    gains: pd.Series
    min_gain: float
    units: str | None


def optimal_epochs(
    results: pd.DataFrame, *, select: str = "auto", resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The best epoch of each prune ratio of one setting, a row a ratio, ascending.

    results: rows of results.csv of one setting; needs epoch, ratio, score, finetune_seed. Dense seeds are replicates:
        averaged, after the fine-tune seeds. Missing cells are averaged over: only what was run counts.
    select: the column the choice is made on; "auto" takes `valid_score` when every row has it, else `score`. The score
        reported is always `score` (test). Chosen on `score` itself, the gain is optimistic: it is a maximum over
        epochs.

    Columns:
        ratio; epoch (chosen; the earliest of exact ties); score
        ties: tuple of epochs whose mean lies within `spread` of the best, {e: A(e) >= A(e*) - s}
        final_epoch (the last of the results); final_score (NaN if that cell was not run); gain = score - final_score
        spread: s.d. of the fine-tune seeds in the column chosen on, pooled over the ratio's epochs, ddof 1; NaN with
            one seed, when only exact ties count
        gain_sd: s.d. of the gain over dense seeds, or over fine-tune seeds with one dense seed; NaN with one of each
        units: number of seeds behind gain_sd
        oracle_epoch, oracle_score (best on `score`); regret = oracle_score - score, 0 or more
        low_epoch, high_epoch: 90 % bootstrap range of the epoch chosen, ends are epochs of the grid, over dense seeds,
            or over fine-tune seeds with one dense seed; NaN with one of each, or resamples=0

    Raises ValueError for a missing column, scores that are not finite, or several settings.
    """
    table = one_setting(results)
    column = selection_column(table, select)
    epochs = np.array(sorted(table["epoch"].unique()))
    ratios = sorted(table["ratio"].unique())
    unit = replication(table)
    _, by_seed = checked_grids(table, "score", unit=unit)  # (U, R, E)
    scores = average(checked_grids(table, "score", unit="dense")[1])  # (R, E)
    chosen_on = average(checked_grids(table, column, unit="dense")[1])  # (R, E)
    spreads = pooled_spread(table, column).reindex(ratios).to_numpy()
    picks, oracles = first_best(chosen_on), first_best(scores)  # (R,)
    lows, highs = _epoch_ranges(
        checked_grids(table, column, unit=unit)[1] if unit else chosen_on[None], epochs, resamples=resamples, seed=seed
    )
    rows = []
    for i, ratio in enumerate(ratios):
        best, oracle = picks[i], oracles[i]
        margin = EXACT if np.isnan(spreads[i]) else max(spreads[i], EXACT)
        seed_gains = by_seed[:, i, best] - by_seed[:, i, -1]
        seed_gains = seed_gains[np.isfinite(seed_gains)]
        rows.append({
            "ratio": float(ratio), "epoch": epochs[best], "score": scores[i, best],
            "ties": tuple(epochs[chosen_on[i] >= chosen_on[i, best] - margin].tolist()),
            "final_epoch": epochs[-1], "final_score": scores[i, -1], "gain": scores[i, best] - scores[i, -1],
            "spread": spreads[i], "gain_sd": seed_gains.std(ddof=1) if len(seed_gains) > 1 else np.nan,
            "units": len(seed_gains), "oracle_epoch": epochs[oracle], "oracle_score": scores[i, oracle],
            "regret": scores[i, oracle] - scores[i, best], "low_epoch": lows[i], "high_epoch": highs[i],
        })  # fmt: skip
    return pd.DataFrame(rows)


def regime_boundary(
    results: pd.DataFrame, *, min_gain: float = 0.5, resamples: int = 2000, seed: int = 0, select: str = "auto"
) -> RegimeBoundary:
    """The ratios of one setting between which early stopping starts to gain `min_gain` points over the last checkpoint.

    `upper` is the lightest ratio that gains as much, `lower` its lighter neighbour. A single noisy light ratio can thus
    set the line: look at `.gains` and `.interval`. The gain is that of the best epoch, chosen as in `optimal_epochs`
    (`select` likewise). The interval resamples dense seeds when there are two or more, else fine-tune seeds (then it
    knows nothing of the variation between dense runs).

    Raises ValueError as `optimal_epochs` does, and for a min_gain that is not positive.
    """
    if not min_gain > 0:
        raise ValueError(f"min_gain is a number of score points above 0: got {min_gain}")
    table = one_setting(results)
    column = selection_column(table, select)
    unit = replication(table)
    ratios = np.array(sorted(table["ratio"].unique()))
    _, scores = checked_grids(table, "score", unit="dense")
    _, chosen_on = checked_grids(table, column, unit="dense")
    gains = _gains(average(chosen_on), average(scores))  # (R,)
    reached = np.flatnonzero(gains >= min_gain - EXACT)  # NaN gains compare False: not reached
    at = int(reached[0]) if len(reached) else len(ratios)
    interval = None
    if unit is not None and resamples > 0:
        _, scores = checked_grids(table, "score", unit=unit)
        _, chosen_on = checked_grids(table, column, unit=unit)
        interval = _bootstrap(chosen_on, scores, ratios, min_gain=min_gain, resamples=resamples, seed=seed)
    return RegimeBoundary(
        lower=float(ratios[at - 1]) if at > 0 else None,
        upper=float(ratios[at]) if at < len(ratios) else None,
        interval=interval,
        gains=pd.Series(gains, index=pd.Index(ratios, name="ratio"), name="gain"),
        min_gain=min_gain,
        units=unit,
    )


def selection_column(results: pd.DataFrame, select: str = "auto") -> str:
    """The column that choices are made on: `valid_score` when complete (or asked for), else `score`."""
    complete = "valid_score" in results.columns and bool(results["valid_score"].notna().all())
    if select == "auto":
        return "valid_score" if complete else "score"
    if select not in ("valid_score", "score"):
        raise ValueError(f'select is "auto", "valid_score" or "score": got {select!r}')
    if select == "valid_score" and not complete:
        raise ValueError('some rows have no valid_score; choose select="score", or hold out part of the training data')
    return select


def first_best(grid: np.ndarray) -> np.ndarray:
    """Index of the earliest best epoch, (..., E) -> (...); missing cells never win."""
    filled = np.where(np.isnan(grid), -np.inf, grid)
    return np.argmax(filled >= filled.max(axis=-1, keepdims=True) - EXACT, axis=-1)


def draw_units(units: int, *, resamples: int, seed: int) -> np.ndarray:
    """How often each unit is drawn in each bootstrap resample, (B, U); rows sum to U."""
    draws = np.random.default_rng(seed).integers(units, size=(resamples, units))
    return (draws[:, :, None] == np.arange(units)).sum(axis=1).astype(float)


def _gains(chosen_on: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Score at the epoch chosen minus score at the last one. (..., R, E), (..., R, E) -> (..., R)"""
    picks = first_best(chosen_on)[..., None]
    return np.take_along_axis(scores, picks, axis=-1)[..., 0] - scores[..., -1]


def _bootstrap(
    chosen_on: np.ndarray, scores: np.ndarray, ratios: np.ndarray, *, min_gain: float, resamples: int, seed: int
) -> tuple[float, float]:
    """90 % range of the lightest ratio that gains `min_gain`, over resampled units. chosen_on, scores: (U, R, E)"""
    counts = draw_units(len(scores), resamples=resamples, seed=seed)
    reached = _gains(average(chosen_on, counts), average(scores, counts)) >= min_gain - EXACT  # (B, R)
    beyond = np.concatenate([reached, np.ones((resamples, 1), bool)], axis=1)  # a last column that always gains: "none"
    uppers = np.append(ratios, 1.0)[beyond.argmax(axis=1)]  # (B,)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(uppers, [tail, 1 - tail], method="inverted_cdf")  # ends that are ratios of the grid
    return float(low), float(high)


def _epoch_ranges(
    chosen_on: np.ndarray, epochs: np.ndarray, *, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """90 % range of the best epoch of each ratio over resampled units. (U, R, E) -> (R,), (R,)"""
    if len(chosen_on) < 2 or resamples < 1:
        return np.full(chosen_on.shape[1], np.nan), np.full(chosen_on.shape[1], np.nan)
    counts = draw_units(len(chosen_on), resamples=resamples, seed=seed)
    picked = epochs[first_best(average(chosen_on, counts))]  # (B, R)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(picked, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low.astype(float), high.astype(float)


def pooled_spread(table: pd.DataFrame, column: str) -> pd.Series:
    """S.d. of the fine-tune seeds within a dense seed and epoch, pooled over these, by ratio; NaN without repeats."""
    groups = table.groupby(["ratio", "dense_seed", "epoch"])[column].agg(["var", "count"])
    freedom = groups["count"] - 1
    squares = (groups["var"].fillna(0.0) * freedom).groupby("ratio").sum()
    freedom = freedom.groupby("ratio").sum()
    return (squares / freedom.where(freedom > 0)) ** 0.5
