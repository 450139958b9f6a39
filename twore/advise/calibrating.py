"""Calibrate advice from run folders, and judge it by leaving whole clusters of settings out.

    python -m twore.advise.calibrating recipes/cifar_scaling/atlas [DIR...]

writes calibration.json beside this file, with its provenance. `docs/advise-calibration.md` shows what came out.

Few settings: so nothing is fitted but shares in three bands, one width and two thresholds a level. The bands say what
pruning left of the final checkpoint (its recalibrated score), since that, more than the ratio or the form of the signal,
tells pairs where a pick is right from others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from twore.advise.calibration import FULL, Band, Calibration, Level, pilot_name
from twore.advise.levels import rule_of
from twore.advise.trials import NAMED, PILOTS, WIDTHS, Trial, as_rows, played
from twore.analysis.boundary import LABELS
from twore.analysis.regimes import COVERAGE as RANGE
from twore.analysis.regimes import draw_units

BANDS = (
    ("intact", 90.0, 100.0),
    ("damaged", 50.0, 90.0),
    ("broken", 0.0, 50.0),
)  # percent right at the end; our choice
STATED = 0.1  # the quantile of the share of hits, over resampled clusters, that is stated as confidence; our choice
PRIOR = 2.0  # pairs' worth of the level's overall share that is mixed into each band; our choice
FEWEST = 3  # clusters behind a band; with fewer nothing is said; our choice
COVERAGE = 0.8  # of the intervals; our choice
THRESHOLDS = np.arange(0.0, 105.0, 5.0)  # percent, tried for the regime label
RESAMPLES = 2000


def calibrate(trials: Sequence[Trial], *, made: dict[str, object] | None = None) -> Calibration:
    """The calibration of these trials (`trials.collect`). made: provenance to be kept with it."""
    levels = {}
    for level, k in [("weights", None), ("batches", None), *(("pilot", k) for k in PILOTS)]:
        own = played(trials, level, k)
        if own:
            levels[level if k is None else pilot_name(k)] = _level(own, level, k)
    return Calibration(
        levels=levels,
        kinds=tuple(sorted({trial.kind for trial in trials if trial.kind is not None})),
        settings=len({trial.setting for trial in trials}),
        clusters=len({trial.cluster for trial in trials}),
        dense_runs=len({trial.run for trial in trials}),
        made=made or {},
    )


def _level(trials: Sequence[Trial], level: str, k: int | None) -> Level:
    rows = as_rows(trials)
    bands = [band for name, low, high in BANDS if (band := _band(rows, name, low, high)) is not None]
    if level == "weights":  # its signal is no percentage: one band
        bands = [band for band in [_band(rows, "all", None, None)] if band is not None]
    width = next((float(w) for w in WIDTHS if (rows["reach"] <= w).mean() >= COVERAGE), 1.0)
    stop, train = (None, None) if level == "weights" else _thresholds(rows)
    return Level(
        rule=rule_of(level, k).name,
        cost=float(rows["cost"].mean()),
        skill=_skill(rows),
        ratios=(float(rows["ratio"].min()), float(rows["ratio"].max())),
        checkpoints=(int(rows["checkpoints"].min()), int(rows["checkpoints"].max())),
        scores=(float(rows["low"].min()), float(rows["peak"].max())),
        width=width,
        coverage=float((rows["reach"] <= width).mean()),
        stop_below=stop,
        train_from=train,
        bands=tuple(bands),
    )


def _band(rows: pd.DataFrame, name: str, low: float | None, high: float | None) -> Band | None:
    """None with too few clusters."""
    last = rows["last"]
    own = rows
    if low is not None and high is not None:
        own = rows[(last >= low) & ((last < high) | (last == high) & (high == FULL))]
    if own["cluster"].nunique() < FEWEST:
        return None
    groups = own.groupby("cluster")
    hits, number = groups["hit"].sum().to_numpy(float), groups.size().to_numpy(float)
    regret = groups["regret"].sum().to_numpy(float)
    counts = draw_units(len(number), resamples=RESAMPLES, seed=0)  # (B, C)
    prior = PRIOR * float(rows["hit"].mean())
    drawn = (counts @ hits + prior) / (counts @ number + PRIOR)
    tail = (1 - RANGE) / 2
    least, most = np.quantile((counts @ regret) / (counts @ number), [tail, 1 - tail])
    known = own[[name for name in NAMED if name in own.columns]].dropna(axis=1).mean()
    return Band(
        name=name, low=low, high=high,
        pairs=len(own.drop_duplicates(["run", "ratio"])), settings=int(own["setting"].nunique()), clusters=len(number),
        hits=float(own["hit"].mean()), confidence=float(np.quantile(drawn, STATED)),
        regret=(float(own["regret"].mean()), float(least), float(most)),
        trivial=str(known.round(9).idxmin()), trivial_regret=float(known.min()),
    )  # fmt: skip


def _skill(rows: pd.DataFrame) -> tuple[float, float, float]:
    """As on the scoreboard, each setting counting once: 1 - regret / regret of the best rule of thumb."""
    names = [name for name in NAMED if name in rows.columns and rows[name].notna().all()]
    means = rows.groupby(["cluster", "setting"])[["regret", *names]].mean()
    baseline = means[names].mean().round(9).idxmin()
    sums = means.groupby("cluster")[["regret", baseline]].sum()
    mean = 1 - sums["regret"].sum() / sums[baseline].sum()
    if len(sums) < 2:
        return float(mean), -np.inf, np.inf
    counts = draw_units(len(sums), resamples=RESAMPLES, seed=0)
    below = counts @ sums[baseline].to_numpy()
    skills = 1 - (counts @ sums["regret"].to_numpy()) / np.where(below > 0, below, np.nan)
    tail = (1 - RANGE) / 2
    low, high = np.nanquantile(skills, [tail, 1 - tail])
    return float(mean), float(low), float(high)


def _thresholds(rows: pd.DataFrame) -> tuple[float, float]:
    """The two values of the final checkpoint's signal that best tell the measured regimes apart."""
    last, label = rows["last"].to_numpy(float), rows["label"].to_numpy(str)
    best, chosen = -1.0, (0.0, 0.0)
    for stop in THRESHOLDS:
        for train in THRESHOLDS[stop <= THRESHOLDS]:
            said = np.where(last < stop, LABELS[0], np.where(last >= train, LABELS[2], LABELS[1]))
            score = balanced_accuracy(said, label)
            if score > best + 1e-9:
                best, chosen = score, (float(stop), float(train))
    return chosen


def balanced_accuracy(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the labels that occur of the share of them that is said, in [0, 1]; 1/labels is chance. (N,), (N,)"""
    return float(np.mean([(said[truth == label] == label).mean() for label in np.unique(truth)]))
