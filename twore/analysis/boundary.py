"""The line between the regimes predicted from pairs of fine-tuned models, and a label for each ratio with its doubt.

Report section 6.3 proposes that model_similarity changes abruptly where stopping early starts to pay. Here that change
is a least-squares change-point along the ratios, and its error is measured in ln density: a factor, not a difference,
is what matters between 2 % and 5 % of the weights.
Letters: U units of replication, R ratios, E epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from twore.analysis.grid import average, checked_grids, finite, match_ratios, one_setting, replication
from twore.analysis.regimes import COVERAGE, EXACT, RegimeBoundary, draw_units, first_best, selection_column

LABELS = ("stop early", "either", "train on")


@dataclass(frozen=True, eq=False)
class BoundaryPrediction:
    """Where a pair metric changes most along the ratios.

    lower, upper: the ratios before and after the change
    jump: mean of the metric after it minus before it, in its unit (in ln units when taken on a log scale)
    strength: share of the variance along the ratios that two levels explain, in [0, 1]; a straight ramp of many ratios
        reaches 0.75, so that is "no abrupt change"
    interval: 90 % bootstrap range of `upper` over dense seeds; None with one, or with resamples=0
    values: the metric by ratio, mean over pairs of seeds, dense seeds and the epochs asked for
    """

    lower: float
    upper: float
    jump: float
    strength: float
    interval: tuple[float, float] | None
    values: pd.Series


def predict_boundary(
    pairs: pd.DataFrame,
    column: str = "model_similarity",
    *,
    epochs: str = "last",
    log: bool | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> BoundaryPrediction:
    """The change-point of a pair metric along the ratios of one setting.

    pairs: rows of pairs.csv of one setting; needs epoch, ratio and `column`; rows `pair == "mean"` are used alone where
        there are any. epochs: "last", the last checkpoint, which is what one has without a grid; "mean", all of them.
    log: fit ln(metric); default for a metric that is positive everywhere, as a divergence is.
    The two levels are fitted by least squares; the lightest of equally good changes. No direction is assumed: see jump.

    Raises ValueError for missing columns, values that are no finite numbers (NaN is left out), fewer than three ratios,
    or log=True with values that are not positive.
    """
    for name in ("epoch", "ratio", column):
        if name not in pairs.columns:
            raise ValueError(f"the pairs need a column `{name}`; the columns are {[str(c) for c in pairs.columns]}")
    if epochs not in ("last", "mean"):
        raise ValueError(f'epochs is "last" or "mean": got {epochs!r}')
    if "setting" in pairs.columns and pairs["setting"].nunique() > 1:
        raise ValueError("the pairs hold several settings; pass them one at a time, as groups of groupby('setting')")
    grids, ratios = _by_dense_seed(pairs, column, epochs)  # (U, R)
    if len(ratios) < 3:
        raise ValueError(f"a change along the ratios needs three of them with `{column}`: got {len(ratios)}")
    values = np.nanmean(grids, axis=0)
    log = bool((values > 0).all()) if log is None else log
    if log and not (values > 0).all():
        raise ValueError(f"`{column}` is not positive everywhere: take log=False")
    at, jump, strength = change_point(np.log(values) if log else values)
    interval = None
    if len(grids) >= 2 and resamples > 0:
        counts = draw_units(len(grids), resamples=resamples, seed=seed)
        drawn = average(grids[..., None], counts)[..., 0]  # (B, R)
        drawn = drawn[np.isfinite(drawn).all(axis=1)]
        with np.errstate(invalid="ignore", divide="ignore"):
            uppers = [ratios[change_point(np.log(row) if log else row)[0]] for row in drawn if not log or row.min() > 0]
        if uppers:
            tail = (1 - COVERAGE) / 2
            low, high = np.quantile(uppers, [tail, 1 - tail], method="inverted_cdf")
            interval = (float(low), float(high))
    return BoundaryPrediction(
        lower=float(ratios[at - 1]),
        upper=float(ratios[at]),
        jump=jump,
        strength=strength,
        interval=interval,
        values=pd.Series(values, index=pd.Index(ratios, name="ratio"), name=column),
    )


def change_point(values: np.ndarray) -> tuple[int, float, float]:
    """Two levels fitted by least squares: the index where the second begins, the difference, the share explained.

    (R,) -> index in [1, R-1] (the first of equals), second level minus first, R^2 in [0, 1] (0 for a constant).
    """
    number = len(values)
    sums = np.cumsum(values - values.mean())
    n = np.arange(1, number)
    between = sums[:-1] ** 2 * number / (n * (number - n))  # sum of squares between the levels, for each split
    total = float(((values - values.mean()) ** 2).sum())
    at = int(np.argmax(between >= between.max() - EXACT * max(total, EXACT))) + 1
    jump = float(values[at:].mean() - values[:at].mean())
    return at, jump, float(between[at - 1] / total) if total > 0 else 0.0


def boundary_error(predicted: BoundaryPrediction | RegimeBoundary, measured: RegimeBoundary) -> float:
    """Distance of two lines in ln density, 0 or more; 0.69 is a factor of two in density.

    A line lies in the middle (in ln density) between its two ratios. NaN when the measured one lies outside the grid
    (no ratio gains, or all do): its place is not known then.
    """
    if measured.lower is None or measured.upper is None or predicted.lower is None or predicted.upper is None:
        return float("nan")
    return abs(_middle(predicted.lower, predicted.upper) - _middle(measured.lower, measured.upper))


def log_density(ratios: np.ndarray, at: int) -> float:
    """ln density of the line before ratio number `at`: the middle of its neighbours; at an end, that end. (R,), 0..R"""
    if at <= 0 or at >= len(ratios):
        return float(np.log1p(-ratios[min(max(at, 0), len(ratios) - 1)]))
    return _middle(float(ratios[at - 1]), float(ratios[at]))


def line_of(early: np.ndarray) -> int:
    """The index from which on every ratio stops early, (R,) bool -> 0..R; R when the heaviest does not."""
    late = np.flatnonzero(~early)
    return int(late[-1]) + 1 if len(late) else 0


def regime_labels(
    results: pd.DataFrame, *, min_gain: float = 0.5, resamples: int = 2000, seed: int = 0, select: str = "auto"
) -> pd.DataFrame:
    """ "stop early", "either" or "train on" for each ratio of one setting, from the interval of the gain.

    The gain of a seed is its score at the epoch chosen on the *other* seeds minus its score at the last epoch: what
    stopping early gains without the luck of the choice. Seeds are dense seeds, or fine-tune seeds with one dense seed
    (which know nothing of the variation between dense runs). Arguments as `regime_boundary`.

    Columns: ratio; label; epoch, the mean's best; gain, mean over seeds, points; low, high, its 90 % bootstrap range.
        "stop early": gain >= min_gain and low > 0. "train on": high < min_gain. "either": anything else.
        With one seed low and high are NaN, the gain is that of the epoch chosen on this seed, too large, and the label
        says only whether it reaches min_gain.
    """
    if not min_gain > 0:
        raise ValueError(f"min_gain is a number of score points above 0: got {min_gain}")
    table = one_setting(results)
    column = selection_column(table, select)
    ratios, epochs = sorted(table["ratio"].unique()), np.array(sorted(table["epoch"].unique()))
    best = first_best(average(checked_grids(table, column, unit="dense")[1]))  # (R,)
    unit = replication(table) or "dense"
    _, scores = checked_grids(table, "score", unit=unit)  # (U, R, E)
    _, chosen_on = checked_grids(table, column, unit=unit)
    number = len(scores)
    others = [np.delete(chosen_on, u, axis=0) if number > 1 else chosen_on for u in range(number)]
    gains = np.stack([_gain(scores[u], first_best(average(others[u]))) for u in range(number)])  # (U, R)
    lows = highs = np.full(len(ratios), np.nan)
    if number > 1:
        drawn = average(gains[..., None], draw_units(number, resamples=resamples, seed=seed))[..., 0]  # (B, R)
        tail = (1 - COVERAGE) / 2
        lows, highs = np.array([_quantiles(drawn[:, i], tail) for i in range(len(ratios))]).T
    rows = []
    for i, ratio in enumerate(ratios):
        known = gains[np.isfinite(gains[:, i]), i]
        gain = float(known.mean()) if len(known) else np.nan
        label = _label(gain, lows[i], highs[i], min_gain)
        rows.append({"ratio": float(ratio), "label": label, "epoch": epochs[best[i]], "gain": gain,
                     "low": lows[i], "high": highs[i]})  # fmt: skip
    return pd.DataFrame(rows)


def _label(gain: float, low: float, high: float, min_gain: float) -> str:
    if np.isnan(low):
        return "either" if np.isnan(gain) else LABELS[0] if gain >= min_gain - EXACT else LABELS[2]
    if gain >= min_gain - EXACT and low > EXACT:
        return LABELS[0]
    return LABELS[2] if high < min_gain - EXACT else LABELS[1]


def _gain(scores: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(R, E), (R,) -> (R,)"""
    return scores[np.arange(len(at)), at] - scores[:, -1]


def _quantiles(values: np.ndarray, tail: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return np.nan, np.nan
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _middle(lower: float, upper: float) -> float:
    return float((np.log1p(-lower) + np.log1p(-upper)) / 2)


def _by_dense_seed(pairs: pd.DataFrame, column: str, epochs: str) -> tuple[np.ndarray, np.ndarray]:
    """The metric of each dense seed by ratio, (U, R), NaN where a seed lacks one; and the ratios, (R,)."""
    frame = pairs.reset_index(drop=True)
    if "pair" in frame.columns and (frame["pair"] == "mean").any():
        frame = frame[frame["pair"] == "mean"]
    frame = frame.dropna(subset=[column])
    if frame.empty:
        raise ValueError(f"no pair has a `{column}`: fine-tune two seeds or more, and measure it")
    frame = frame.assign(**{name: finite(frame[name], name) for name in ("epoch", "ratio", column)})
    frame["ratio"] = match_ratios(frame["ratio"].to_numpy(float))
    if epochs == "last":
        frame = frame[frame["epoch"] == frame["epoch"].max()]
    seeds = frame["dense_seed"] if "dense_seed" in frame.columns else pd.Series(0, index=frame.index)
    means = frame.groupby([seeds, "epoch", "ratio"])[column].mean().groupby(level=[0, 2]).mean().unstack()
    return means.to_numpy(float), means.columns.to_numpy(float)
