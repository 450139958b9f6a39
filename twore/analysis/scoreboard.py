"""The scoreboard: every predictor of the stopping epoch, over many settings and studies, by regret.

    board = scoreboard(["runs/cifar_atlas", "runs/wmt14_atlas"])

A setting counts once, whatever its size. Intervals are bootstrap ranges over clusters of settings (settings that prune
the same dense run are one cluster): they say how far another draw of settings *of this kind* could move a number.
`evaluation.py` says how a predictor is judged on one setting, `predictors.py` how the oracle is optimistic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from twore.analysis.candidates import candidates
from twore.analysis.dropped import dropped
from twore.analysis.evaluation import score_settings
from twore.analysis.grid import average
from twore.analysis.pilots import default_pilots, shortlist_pilot
from twore.analysis.regimes import COVERAGE, EXACT, draw_units
from twore.analysis.rules import Predictor, signal_rules, trivial_rules
from twore.analysis.settings import SettingTables, complete_ratios, gather, split_dense_seeds
from twore.analysis.short_pilots import short_pilots
from twore.analysis.tuning import Factory, leave_one_out

BOARD = ("predictor", "needs", "trivial", "cost", "settings", "clusters",
         "mean_regret", "mean_low", "mean_high", "heavy_regret", "heavy_low", "heavy_high", "heavy_settings",
         "worst_regret", "worst_low", "worst_high", "worst_setting", "worst_cell", "normalised_regret",
         "skill", "skill_low", "skill_high", "baseline", "better_than_final", "hits", "hits_low", "hits_high",
         "tau", "tau_low", "tau_high", "heavy_tau", "boundary_error", "mean_score")  # fmt: skip
SHORTLISTED = ("recalibrated_score", "pruned_score")  # probes that make a shortlist, the better known first
FINAL = "final checkpoint"


def scoreboard(
    sources: Iterable[Path | str | SettingTables],
    predictors: Sequence[Predictor] | None = None,
    *,
    tuned: Mapping[str, Factory] | None = None,
    dense: str = "mean",
    oracle: str = "mean",
    min_gain: float = 0.5,
    seed: int = 0,
) -> pd.DataFrame:
    """The scoreboard of run folders and settings, a row a predictor, best first; `summarise` has the columns.

    predictors: default `default_predictors`. tuned: name -> factory, judged by leaving one setting (its whole cluster)
        out. dense: "mean", dense seeds are replicates; "each", every dense run is judged by itself, as a user has it.
    oracle, min_gain: as `score_predictors`.

    Settings whose grid is not complete are compared on their complete ratios, or left out when none is:
    `board.attrs["left_out"]` names these. ValueError when no setting is left.
    """
    settings, left_out = comparable(sources, dense=dense)
    rules = list(default_predictors(settings) if predictors is None else predictors)
    rules += [leave_one_out(factory, settings, name=name) for name, factory in (tuned or {}).items()]
    board = summarise(score_settings(settings, rules, oracle=oracle, min_gain=min_gain), seed=seed)
    board.attrs["left_out"] = left_out
    return board


def comparable(
    sources: Iterable[Path | str | SettingTables], *, dense: str = "mean"
) -> tuple[list[SettingTables], list[str]]:
    """The settings on their complete ratios, and the names of those left out; dense: as `scoreboard`."""
    if dense not in ("mean", "each"):
        raise ValueError(f'dense is "mean" or "each": got {dense!r}')
    settings = gather(sources)
    if dense == "each":
        settings = [part for setting in settings for part in split_dense_seeds(setting)]
    whole = [(setting, complete_ratios(setting)) for setting in settings]
    ready = [complete for _, complete in whole if complete is not None]
    if not ready:
        raise ValueError("no setting has all checkpoints of a ratio, two at least: let the studies finish first")
    return ready, [setting.name for setting, complete in whole if complete is None]


def default_predictors(settings: Sequence[SettingTables]) -> list[Predictor]:
    """The trivial rules, a rule for every known metric some setting has, pilots, a pilot shortlisted by the first of
    SHORTLISTED there is, and our own: `candidates`, `short_pilots`, and what was `dropped`."""
    signals = signal_rules(list(settings))
    ours = [*candidates(settings), *short_pilots(settings), *dropped(settings)]
    board = [*trivial_rules(), *signals, *default_pilots(), *ours]
    for column in SHORTLISTED:
        rule = next((r for r in signals if r.needs == "a few batches" and column in r.name.split()), None)
        if rule is not None:
            return [*board, shortlist_pilot(rule)]
    return board


def summarise(rows: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """From the rows of `score_settings` to a row a predictor, in points of the score.

    Order: smallest mean regret first among the rules that apply to every setting, then the others likewise.

    Columns (…_low and …_high: 90 % bootstrap range over clusters; NaN where a rule has one cluster):
        predictor, needs, trivial; cost: mean share of the grid's fine-tuning epochs
        settings, clusters: where it applies; rows with fewer settings are not comparable by their means, only by skill
        mean_regret: mean over settings of the mean over ratios
        heavy_regret: the same over heavy ratios, of the heavy_settings settings that have a boundary; NaN without any
        worst_regret: the largest of the settings' means, in worst_setting (its range cannot reach beyond the largest
            seen); worst_cell: the largest regret at any single ratio
        normalised_regret: mean over settings, 0 oracle, 1 random epoch
        skill: 1 - mean_regret / that of `baseline`, the trivial rule with the smallest mean regret on the same settings
            (best in hindsight, which favours it); 1 oracle, 0 no better, below 0 worse. NaN where the baseline is never
            wrong
        better_than_final: share of the settings where its mean regret is smaller than the final checkpoint's
        hits: share of ratios picked within the ties of the oracle; of a pilot on the seeds it did not choose with (one
            seed: chosen on validation, judged on test)
        tau, heavy_tau: Kendall's tau-b of its signal with the score along the epochs, over (heavy) ratios
        boundary_error: mean distance of its own line from the measured boundary, in ln density
        mean_score: after pruning at its picks
    """
    if rows.empty:
        raise ValueError("no predictor applies to any of the settings")
    names = list(dict.fromkeys(rows["cluster"]))
    counts = draw_units(len(names), resamples=resamples, seed=seed) if len(names) > 1 else None  # (B, C), all rules
    trivial = rows[rows["trivial"].astype(bool)]
    final = rows[rows["predictor"] == FINAL].set_index("setting")["mean_regret"]
    board = []
    for predictor, own in rows.groupby("predictor", sort=False):
        drawn = None
        if counts is not None and own["cluster"].nunique() > 1:
            drawn = counts[:, [names.index(name) for name in own["cluster"]]]  # (B, S)
        line = {"predictor": predictor, "settings": len(own), "clusters": own["cluster"].nunique()}
        line |= {name: own[name].iloc[0] for name in ("needs", "trivial")}
        means = ("cost", "normalised_regret", "heavy_tau", "boundary_error", "mean_score")
        line |= {name: _mean(own[name].to_numpy(float)) for name in means}
        for name, short in (("mean_regret", "mean"), ("heavy_regret", "heavy"), ("hits", "hits"), ("tau", "tau")):
            values = own[name].to_numpy(float)
            line[name] = _mean(values)
            line[f"{short}_low"], line[f"{short}_high"] = _range(_means(values, drawn))
        regret = own["mean_regret"].to_numpy(float)
        line["heavy_settings"] = int(own["heavy_regret"].notna().sum())
        line["worst_regret"], line["worst_setting"] = regret.max(), own["setting"].iloc[int(regret.argmax())]
        line["worst_low"], line["worst_high"] = _range(_maxima(regret, drawn))
        line["worst_cell"] = own["worst_regret"].max()
        line |= _skill(own, trivial, drawn)
        beside = final.reindex(own["setting"]).to_numpy(float)
        both = np.isfinite(beside)
        line["better_than_final"] = float((regret < beside - EXACT)[both].mean()) if both.any() else np.nan
        board.append(line)
    table = pd.DataFrame(board, columns=list(BOARD))
    partial = table["settings"] < rows["setting"].nunique()
    order = np.lexsort((table["predictor"], table["mean_regret"].round(9), partial))
    return table.iloc[order].reset_index(drop=True)


def _skill(own: pd.DataFrame, trivial: pd.DataFrame, drawn: np.ndarray | None) -> dict[str, float | str]:
    """1 - regret / regret of the best trivial rule on the settings of `own`."""
    table = trivial.pivot(index="setting", columns="predictor", values="mean_regret").reindex(own["setting"])
    table = table.dropna(axis=1)  # only rules that apply wherever this one does
    nothing: dict[str, float | str] = {"skill": np.nan, "skill_low": np.nan, "skill_high": np.nan, "baseline": ""}
    if table.shape[1] == 0:
        return nothing
    baseline = str(table.mean().round(9).idxmin())
    base, regret = table[baseline].to_numpy(float), own["mean_regret"].to_numpy(float)
    if base.mean() <= EXACT:
        return nothing | {"baseline": baseline}
    low, high = np.nan, np.nan
    if drawn is not None:
        below, above = drawn @ base, drawn @ regret
        low, high = _range(1 - above[below > EXACT] / below[below > EXACT])
    return {"skill": float(1 - regret.mean() / base.mean()), "skill_low": low, "skill_high": high, "baseline": baseline}


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _means(values: np.ndarray, drawn: np.ndarray | None) -> np.ndarray:
    """Mean of the values there are in each resample. (S,), (B, S) -> (B,), NaN where a resample has none"""
    return np.array([]) if drawn is None else average(values[:, None, None], drawn)[:, 0, 0]


def _maxima(values: np.ndarray, drawn: np.ndarray | None) -> np.ndarray:
    """Largest value in each resample. (S,), (B, S) -> (B,)"""
    if drawn is None:
        return np.array([])
    largest = np.where(drawn > 0, values, -np.inf).max(axis=1)
    return largest[np.isfinite(largest)]


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return float("nan"), float("nan")
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)
