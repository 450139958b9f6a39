"""Every predictor on every setting: a row each, before anything is averaged over settings.

Fairness. Choices are made on `valid_score` where it is complete, and reported on the test score. A predictor sees no
more than it says it needs: one without fine-tuning is handed the results without scores, a pilot one fine-tune seed.
A pilot is played once with each fine-tune seed, scored on the *other* seeds against the same oracle epochs as every
other rule, and averaged; with a single seed it chooses on `valid_score` and is scored on the test score, and does not
apply where there is none.
Letters: R ratios, E epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from twore.analysis.boundary import line_of, log_density
from twore.analysis.grid import mean_grid, one_setting
from twore.analysis.predictors import Yardstick, judge, shares, ties_within, yardstick
from twore.analysis.regimes import regime_boundary, selection_column
from twore.analysis.rules import Predictor
from twore.analysis.settings import SettingTables, clusters

ROWS = ("setting", "cluster", "predictor", "needs", "trivial", "cost", "mean_regret", "heavy_regret", "worst_regret",
        "normalised_regret", "hits", "tau", "heavy_tau", "boundary_error", "mean_score", "ratios", "heavy_ratios",
        "epochs")  # fmt: skip
HIDDEN = ("score", "valid_score", "loss", "valid_loss", "train_loss")  # of fine-tuned cells: not for rules without them


def score_settings(
    settings: Sequence[SettingTables],
    predictors: Sequence[Predictor],
    *,
    oracle: str = "mean",
    min_gain: float = 0.5,
) -> pd.DataFrame:
    """Each predictor's regret on each setting where it applies, a row a setting and predictor.

    settings: with complete grids (`complete_ratios`) and names of their own. oracle, min_gain: as `score_predictors`;
        settings with one dense seed are left out under oracle="others".

    Columns: setting; cluster (see `clusters`); predictor, needs, trivial, cost;
        mean_regret, heavy_regret, worst_regret (over ratios), normalised_regret, hits, mean_score: `score_predictors`;
        tau, heavy_tau: Kendall's tau-b between the rule's signal and the mean test score along the epochs, mean over
            (heavy) ratios; NaN without a signal, or where either is the same at all epochs (undefined, not 0);
        boundary_error: how far the rule's own line between "stop early" and "last checkpoint" lies from the measured
            boundary, in units of ln density; NaN without a measured boundary, or for a random pick;
        ratios, heavy_ratios, epochs: how many.

    Raises ValueError for two predictors of the same name, and as `score_predictors` does.
    """
    names = [predictor.name for predictor in predictors]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two predictors are called {twice!r}: name them apart")
    rows = []
    for setting, cluster in zip(settings, clusters(settings)):
        if oracle == "others" and one_setting(setting.results)["dense_seed"].nunique() < 2:
            continue
        line = regime_boundary(setting.results, min_gain=min_gain, resamples=0).upper
        yard = yardstick(setting.results, heavy=np.inf if line is None else line, oracle=oracle)
        measured = None if line is None else log_density(yard.ratios, int(np.flatnonzero(yard.ratios == line)[0]))
        pilots = any(predictor.needs == "pilot" for predictor in predictors)
        played = {"pilot": _pilot_plays(setting, yard, oracle) if pilots else [], "grid": [(setting, yard)]}
        unscored = [(blind(setting), yard)]
        for predictor in predictors:
            row = _score(predictor, setting, yard, measured, played.get(predictor.needs, unscored))
            if row is not None:
                about = {"setting": setting.name, "cluster": cluster, "predictor": predictor.name}
                rows.append(about | {"needs": predictor.needs, "trivial": predictor.trivial} | row)
    return pd.DataFrame(rows, columns=list(ROWS))


def trials(setting: SettingTables) -> Iterator[tuple[SettingTables, pd.DataFrame]]:
    """What a pilot sees, and the rows it is scored on, once for each fine-tune seed; nothing where it cannot be played.

    Only seeds with every cell are played. The pilot's `score` is the score it may choose on.
    """
    table = one_setting(setting.results)
    chosen_on = selection_column(table)
    seeds = sorted(table["finetune_seed"].unique())
    if len(seeds) == 1 and chosen_on == "score":
        return
    cells = table.drop_duplicates(["dense_seed", "epoch", "ratio"])
    for seed in seeds:
        own = table[table["finetune_seed"] == seed]
        rest = table[table["finetune_seed"] != seed] if len(seeds) > 1 else own
        whole = len(rest.drop_duplicates(["dense_seed", "epoch", "ratio"])) == len(cells)
        if len(own) == len(cells) and whole:
            hidden = [name for name in HIDDEN if name in own.columns and name != "score"]
            yield replace(setting, results=own.assign(score=own[chosen_on]).drop(columns=hidden)), rest


def _score(
    predictor: Predictor,
    setting: SettingTables,
    yard: Yardstick,
    measured: float | None,
    plays: list[tuple[SettingTables, Yardstick]],
) -> dict[str, float] | None:
    """The numbers of one predictor on one setting, mean over its plays; None where it does not apply."""
    played = []
    for seen, judged in plays:
        picks = predictor.pick(seen)
        if picks is None:
            return None
        share = shares(picks, judged, name=predictor.name)
        own = _own_line(share, yard.ratios)
        error = np.nan if measured is None or own is None else abs(own - measured)
        played.append(judge(judged, share) | {"boundary_error": error})
    if not played:
        return None
    means = {name: float(np.mean([numbers[name] for numbers in played])) for name in played[0]}
    tau, heavy_tau = _taus(predictor, setting, yard)
    size = {"ratios": len(yard.ratios), "epochs": len(yard.epochs), "heavy_ratios": int(yard.heavy.sum())}
    return means | {"cost": predictor.cost_of(setting), "tau": tau, "heavy_tau": heavy_tau} | size


def _pilot_plays(setting: SettingTables, yard: Yardstick, oracle: str) -> list[tuple[SettingTables, Yardstick]]:
    """What a pilot sees and what it is measured with, for each of its trials."""
    plays = []
    for seen, rest in trials(setting):
        if oracle == "others":
            judged = yardstick(rest, heavy=yard.ratios[yard.heavy], oracle=oracle)
            judged = replace(judged, spread=yard.spread, ties=ties_within(judged.scores, yard.spread))
        else:
            judged = judged_on(rest, yard)
        plays.append((seen, judged))
    return plays


def judged_on(rest: pd.DataFrame, yard: Yardstick) -> Yardstick:
    """What a pilot is measured with: the setting's oracle and spread, but scores of the rows it did not choose with."""
    scores = mean_grid(rest).to_numpy(float)
    reference = scores[np.arange(len(yard.ratios)), yard.oracles]
    with np.errstate(invalid="ignore"):  # a missing cell compares False
        ties = scores >= (reference - yard.spread)[:, None]
    return replace(yard, scores=scores, reference=reference, ties=ties)


def blind(setting: SettingTables) -> SettingTables:
    """The setting as a rule that fine-tunes nothing may see it: which cells there are, but no score of one."""
    hidden = [name for name in HIDDEN if name in setting.results.columns]
    return replace(setting, results=setting.results.drop(columns=hidden), pairs=None)


def _own_line(share: np.ndarray, ratios: np.ndarray) -> float | None:
    """The ln density where a rule turns to stopping early, from its picks, (R, E); None for a random pick."""
    if not np.isin(share, (0.0, 1.0)).all():
        return None
    return log_density(ratios, line_of(share[:, -1] == 0))


def _taus(predictor: Predictor, setting: SettingTables, yard: Yardstick) -> tuple[float, float]:
    seen = setting if predictor.needs == "grid" else blind(setting)
    signal = None if predictor.signal is None else predictor.signal(seen)
    if signal is None:
        return np.nan, np.nan
    taus = np.array([tau_b(values, scores) for values, scores in zip(signal.to_numpy(float), yard.scores)])
    return _mean(taus), _mean(taus[yard.heavy])


def tau_b(values: np.ndarray, scores: np.ndarray) -> float:
    """Kendall's tau-b over the pairs both have, ties counted, in [-1, 1]; NaN where either is constant. (E,), (E,)"""
    both = np.isfinite(values) & np.isfinite(scores)
    if both.sum() < 2 or np.ptp(values[both]) == 0 or np.ptp(np.round(scores[both], 9)) == 0:
        return float("nan")
    return float(kendalltau(values[both], np.round(scores[both], 9)).statistic)  # means equal but for rounding: ties


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
