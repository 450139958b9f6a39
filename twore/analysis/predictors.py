"""Which epoch would you have pruned, and what did it cost? Rules that pick epochs, scored by regret on one setting.

Regret of a pick at a ratio: the oracle's score minus the score at the epoch picked, in points of the test score (mean
over seeds); then the mean over ratios. The oracle is the best epoch of the mean test score itself, a maximum over noisy
cells, so every regret is a little too large, that of a perfect rule included; `oracle="others"` compares with the epoch
that is best for the *other* dense seeds instead, which is what can be attained without luck, and may be beaten.
Letters: U units of replication, R ratios, E epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from twore.analysis.grid import RATIO_TOLERANCE, average, checked_grids, one_setting, replication
from twore.analysis.regimes import COVERAGE, EXACT, draw_units, first_best, pooled_spread, regime_boundary

Pick = float | Sequence[float]  # an epoch; several: one of them at random, each equally likely, scored by expectation
Picks = Mapping[float, Pick]  # by ratio
Rule = Callable[[pd.DataFrame], "Pick | Picks | None"]
COLUMNS = ("predictor", "mean_regret", "heavy_regret", "worst_regret", "low_regret", "high_regret",
           "normalised_regret", "hits", "mean_score", "worst_ratio", "heavy_ratios")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What picks are measured with, for one setting.

    ratios (R,), epochs (E,) ascending · scores (R, E): mean test score · reference (R,): the oracle's score
    heavy (R,) bool · ties (R, E) bool: within one s.d. of the fine-tune seeds of the best · oracles (R,): its index
    spread (R,): that s.d., points, at least EXACT
    unit_scores (U, R, E), unit_reference (U, R): the same for each unit of replication, for intervals
    """

    ratios: np.ndarray
    epochs: np.ndarray
    scores: np.ndarray
    reference: np.ndarray
    oracles: np.ndarray
    heavy: np.ndarray
    ties: np.ndarray
    spread: np.ndarray
    unit_scores: np.ndarray
    unit_reference: np.ndarray


def score_predictors(
    results: pd.DataFrame,
    picks: Mapping[str, Pick | Picks | Rule | None],
    *,
    heavy: Collection[float] | float | None = None,
    oracle: str = "mean",
    min_gain: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The regret of each rule on one setting, a row a rule in the order given.

    results: rows of results.csv of one setting; needs epoch, ratio, score, finetune_seed.
    picks: name -> an epoch; or {ratio: epoch} for every ratio of the results (matched within 1e-9; a Series indexed by
        ratio will do); or a function of the results that returns one of these. A sequence of epochs in place of one is
        scored by its expectation: one of them drawn at random. None or NaN, from a function or as it is: the rule does
        not apply and is left out.
    heavy: the heavy ratios, or the lightest of them; default those at or beyond `regime_boundary(results).upper`.
    oracle: "mean", the best epoch of the mean test score of all seeds; "others", for each dense seed the epoch best for
        the other ones (two dense seeds or more). See the module's first lines.
    min_gain: of the default boundary, points.

    Columns (regrets in points of the test score, 0 best):
        predictor; mean_regret, heavy_regret, worst_regret: mean, mean over the heavy ratios (NaN without any), maximum
            over ratios
        low_regret, high_regret: 90 % bootstrap range of the mean over dense seeds (over fine-tune seeds with one dense
            seed), the oracle's epochs held fixed; NaN with one seed of each
        normalised_regret: mean_regret over that of a random epoch, 0 oracle, 1 random; NaN where every epoch is equal
        hits: share of the ratios whose pick lies within one s.d. of the fine-tune seeds of the oracle (exact ties only
            with one seed)
        mean_score; worst_ratio: where worst_regret is; heavy_ratios: how many

    Raises ValueError as `optimal_epochs` does; for an epoch that is not in the results or whose cell was not run, a
    ratio without a pick, or a ratio that is not in the results.
    """
    yard = yardstick(results, heavy=heavy, oracle=oracle, min_gain=min_gain)
    rows = []
    for name, pick in picks.items():
        chosen = pick(results) if callable(pick) else pick
        if chosen is None or does_not_apply(chosen):
            continue
        share = shares(chosen, yard, name=name)
        low, high = _interval(yard, share, resamples=resamples, seed=seed)
        rows.append({"predictor": name, **judge(yard, share), "low_regret": low, "high_regret": high})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def yardstick(
    results: pd.DataFrame,
    *,
    heavy: Collection[float] | float | None = None,
    oracle: str = "mean",
    min_gain: float = 0.5,
) -> Yardstick:
    """What picks on one setting are measured with; arguments as for `score_predictors`."""
    table = one_setting(results)
    ratios = np.array(sorted(table["ratio"].unique()), float)
    epochs = np.array(sorted(table["epoch"].unique()), float)
    _, dense = checked_grids(table, "score", unit="dense")  # (D, R, E)
    scores = average(dense)
    _, units = checked_grids(table, "score", unit=replication(table))
    oracles = first_best(scores)
    if oracle == "mean":
        unit_reference = np.take_along_axis(units, np.broadcast_to(oracles, units.shape[:2])[..., None], -1)[..., 0]
        reference = scores[np.arange(len(ratios)), oracles]
    elif oracle == "others":
        if len(dense) < 2:
            raise ValueError('oracle="others" needs two dense seeds or more: add some, or take oracle="mean"')
        elsewhere = np.stack([first_best(average(np.delete(dense, d, axis=0))) for d in range(len(dense))])  # (D, R)
        units = dense
        unit_reference = np.take_along_axis(dense, elsewhere[..., None], -1)[..., 0]
        reference = average(unit_reference[..., None])[:, 0]
    else:
        raise ValueError(f'oracle is "mean" or "others": got {oracle!r}')
    spread = pooled_spread(table, "score").reindex(ratios).fillna(0.0).clip(lower=EXACT).to_numpy(float)  # (R,)
    ties = ties_within(scores, spread)
    return Yardstick(ratios, epochs, scores, reference, oracles, _heavy(table, ratios, heavy, min_gain), ties, spread,
                     units, unit_reference)  # fmt: skip


def ties_within(scores: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Which epochs are within `spread` points, (R,), of the best of each ratio; a missing cell is not. (R, E) bool"""
    with np.errstate(invalid="ignore"):
        return scores >= (np.nanmax(scores, axis=1) - spread)[:, None]


def shares(chosen: Pick | Picks, yard: Yardstick, *, name: str) -> np.ndarray:
    """How likely each epoch is picked at each ratio, rows sum to 1, (R, E): one 1 a row unless a pick is random."""
    if isinstance(chosen, pd.Series):
        chosen = {float(ratio): epoch for ratio, epoch in zip(chosen.index.to_numpy(float), chosen)}
    by_ratio: list[Any]
    if isinstance(chosen, Mapping):
        given = np.array([float(ratio) for ratio in chosen])
        values = list(chosen.values())
        for ratio in given:
            if not (np.abs(yard.ratios - ratio) <= RATIO_TOLERANCE).any():
                raise ValueError(f"{name!r} picks an epoch for ratio {ratio:g}; the results have {_list(yard.ratios)}")
        by_ratio = []
        for ratio in yard.ratios:
            at = np.flatnonzero(np.abs(given - ratio) <= RATIO_TOLERANCE)
            if len(at) == 0 or does_not_apply(values[at[0]]):
                raise ValueError(f"{name!r} picks no epoch for ratio {ratio:g}: give one, or leave that ratio out")
            by_ratio.append(values[at[0]])
    else:
        by_ratio = [chosen] * len(yard.ratios)
    share = np.zeros_like(yard.scores)
    for i, pick in enumerate(by_ratio):
        try:
            options = np.atleast_1d(np.asarray(pick, dtype=float))
        except (TypeError, ValueError):
            options = np.array([])
        if options.ndim != 1 or len(options) == 0:
            raise ValueError(f"{name!r} picks {pick!r} at ratio {yard.ratios[i]:g}: give an epoch, or several")
        for epoch in options:
            at = np.flatnonzero(np.abs(yard.epochs - epoch) <= EXACT)
            if len(at) == 0:
                raise ValueError(f"{name!r} picks epoch {epoch:g}; the results have {_list(yard.epochs)}")
            if np.isnan(yard.scores[i, at[0]]):
                raise ValueError(f"{name!r} picks epoch {epoch:g} at ratio {yard.ratios[i]:g}, a cell not yet run")
            share[i, at[0]] += 1 / len(options)
    return share


def regrets(yard: Yardstick, share: np.ndarray) -> np.ndarray:
    """Regret at each ratio, points. (R, E) -> (R,)"""
    return yard.reference - np.where(share > 0, share * yard.scores, 0.0).sum(axis=-1)


def judge(yard: Yardstick, share: np.ndarray) -> dict[str, float]:
    """The numbers of one rule's row, without its interval; `score_predictors` says what they are."""
    regret = regrets(yard, share)
    random = float(np.mean(yard.reference - np.nanmean(yard.scores, axis=1)))
    return {
        "mean_regret": float(regret.mean()),
        "heavy_regret": float(regret[yard.heavy].mean()) if yard.heavy.any() else np.nan,
        "worst_regret": float(regret.max()),
        "normalised_regret": float(regret.mean()) / random if abs(random) > EXACT else np.nan,
        "hits": float((share * yard.ties).sum(axis=1).mean()),
        "mean_score": float((yard.reference - regret).mean()),
        "worst_ratio": float(yard.ratios[np.argmax(regret)]),
        "heavy_ratios": int(yard.heavy.sum()),
    }


def does_not_apply(chosen: Any) -> bool:
    """None or NaN: what a rule returns where it has nothing to say."""
    return chosen is None or (isinstance(chosen, Real) and bool(np.isnan(float(chosen))))


def _heavy(
    table: pd.DataFrame, ratios: np.ndarray, heavy: Collection[float] | float | None, min_gain: float
) -> np.ndarray:
    if heavy is None:
        upper = regime_boundary(table, min_gain=min_gain, resamples=0).upper
        heavy = np.inf if upper is None else upper
    if isinstance(heavy, Real):
        return ratios >= float(heavy) - RATIO_TOLERANCE
    wanted = np.array([float(ratio) for ratio in heavy])  # type: ignore[union-attr]
    distance = np.abs(wanted[:, None] - ratios)  # (H, R)
    for ratio in wanted[~(distance <= RATIO_TOLERANCE).any(axis=1)]:
        raise ValueError(f"heavy names ratio {ratio:g}; the results have {_list(ratios)}")
    return (distance <= RATIO_TOLERANCE).any(axis=0)


def _interval(yard: Yardstick, share: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    """90 % bootstrap range of the mean regret over units."""
    units = len(yard.unit_scores)
    if units < 2 or resamples < 1:
        return np.nan, np.nan
    scored = np.where(share > 0, share * yard.unit_scores, 0.0).sum(axis=-1)  # (U, R), NaN where a unit lacks the cell
    counts = draw_units(units, resamples=resamples, seed=seed)  # (B, U)
    means = np.nanmean(average((yard.unit_reference - scored)[..., None], counts)[..., 0], axis=1)  # (B,)
    tail = (1 - COVERAGE) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _list(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
