"""Calibrate advice from run folders: what `calibration.json` holds, and the command that writes it.

    python -m twore.advise.calibrating DIR... [--out calibration.json] [--page docs/advise-calibration.md]

Few settings: so nothing is fitted but two shares and a width in three bands, and two thresholds a level, apart for
networks with and without BatchNorm, whose pruned scores are repaired in different ways. The bands say what pruning left
of the final checkpoint, since that tells pairs where a pick is right from others. Nothing in the form of the signal did
beside it, nor by how much a pilot's pick leads the final checkpoint, which tells of the seed that it chose with. How
good the result is on settings it has not seen: `reliability.py`.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from twore.advise.calibration import SHIPPED, Band, Calibration, Level, pilot_name
from twore.advise.levels import rule_of
from twore.advise.trials import KINDS, NAMED, PILOTS, WIDTHS, Trial, as_rows, collect, played
from twore.analysis.boundary import LABELS
from twore.analysis.regimes import COVERAGE as RANGE
from twore.analysis.regimes import draw_units
from twore.provenance import code_version

BANDS = (("broken", -np.inf, 0.5), ("damaged", 0.5, 0.9), ("intact", 0.9, np.inf))  # share kept; our choice
STATED = 0.2  # the quantile of the share of hits, over resampled clusters, that is stated as confidence; our choice
PRIOR = 2.0  # pairs' worth of the level's overall share that is mixed into each band; our choice
FEWEST = 3  # clusters behind a band; with fewer nothing is said; our choice
USED = FEWEST + 1  # behind one that is used: with any cluster left out there are FEWEST, so that it was judged at all
COVERAGE = 0.8  # of the intervals; our choice
THRESHOLDS = np.round(np.arange(0.0, 1.05, 0.05), 2)  # share kept, tried for the regime label
RESAMPLES = 2000
TAIL = (1 - RANGE) / 2


def calibrate(trials: Sequence[Trial], *, fewest: int = USED, made: dict[str, Any] | None = None) -> Calibration:
    """The calibration of these trials (`trials.collect`), without those of a kind of repair that too few clusters stand
    behind (`kinds`). fewest: clusters behind a kind and a band. made: provenance to be kept with it."""
    known = kinds(trials, fewest=fewest)
    trials = [trial for trial in trials if trial.kind is None or trial.kind in known]
    levels: dict[str, Level] = {}
    repaired: dict[str, dict[str, Level]] = {}
    for level, k in [("weights", None), ("batches", None), *(("pilot", k) for k in PILOTS)]:
        for kind, own in _by_kind(level, played(trials, level, k)).items():
            place = levels if kind is None else repaired.setdefault(kind, {})
            place[level if k is None else pilot_name(k)] = _level(own, level, k, fewest)
    return Calibration(
        levels=levels,
        repaired=repaired,
        kinds=known,
        settings=len({trial.setting for trial in trials}),
        clusters=len({trial.cluster for trial in trials}),
        dense_runs=len({trial.run for trial in trials}),
        made=made or {},
    )


def kinds(trials: Sequence[Trial], *, fewest: int = USED) -> tuple[str, ...]:
    """The kinds of repair that so many clusters or more stand behind."""
    found = {kind: {t.cluster for t in trials if t.kind == kind} for kind in {t.kind for t in trials}}
    return tuple(sorted(kind for kind, names in found.items() if kind is not None and len(names) >= fewest))


def band_name(kept: float) -> str:
    """The name in BANDS of what pruning left, a share; "" for NaN."""
    return next((name for name, low, high in BANDS if low <= kept < high), "")


def _by_kind(level: str, trials: Sequence[Trial]) -> dict[str | None, list[Trial]]:
    """Apart by how the network was repaired, since that decides what the signal is worth; weights need no repair."""
    apart: dict[str | None, list[Trial]] = {}
    for trial in trials:
        apart.setdefault(None if level == "weights" else trial.kind, []).append(trial)
    return apart


def balanced_accuracy(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the labels that occur of the share of them that is said, in [0, 1]; 1/labels is chance. (N,), (N,)"""
    return float(np.mean([(said[truth == label] == label).mean() for label in np.unique(truth)]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the calibration, and the page that says how reliable it is; returns the exit status."""
    from twore.advise.reliability import write_page  # which needs this module

    parser = argparse.ArgumentParser(prog="python -m twore.advise.calibrating", description=main.__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="run folders; all their settings count")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the calibration (default: the one that is shipped)")
    parser.add_argument("--page", type=Path, help="write the reliability page and its figure here, too")
    options = parser.parse_args(arguments)
    try:
        trials = collect(options.folders)
        unknown = sorted({trial.setting.split(":")[0] for trial in trials if trial.kind is None})
        if unknown:
            raise ValueError(
                f"{unknown[0]}: which repair its probes had is not known, so that no advice could use them: its "
                f"study.yaml names none of {', '.join(KINDS)}"
            )
        if not kinds(trials):
            raise ValueError(
                f"nothing can be calibrated on these folders: no kind of network has {USED} settings or more that "
                "share no dense run; name more run folders"
            )
    except (FileNotFoundError, ValueError) as error:
        print(f"twore: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    calibration = calibrate(trials, made=_provenance(options.folders, trials))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(calibration.to_json())
    print(f"{options.out}: {calibration.settings} settings in {calibration.clusters} clusters")
    if options.page is not None:
        write_page(options.page, calibration, trials, collect(options.folders, every=2))
        print(f"{options.page}: how reliable that is")
    return 0


def _provenance(folders: Sequence[Path], trials: Sequence[Trial]) -> dict[str, Any]:
    """Which folders, with the settings each adds (0: for want of tables or of its kind), which code, when."""
    names = ["/".join(folder.resolve().parts[-2:]) for folder in folders]
    known = kinds(trials)
    own = [t for t in trials if t.kind in known]
    added = {name: len({t.setting for t in own if t.setting.split(":")[0] == name}) for name in names}
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"folders": added, "commit": code_version(), "date": now}


def _level(trials: Sequence[Trial], level: str, k: int | None, fewest: int) -> Level:
    rows = as_rows(trials)
    weights = level == "weights"  # whose signal is no score, so that nothing is known of what is kept
    wanted = [("all", None, None)] if weights else list(BANDS)
    bands = [band for name, low, high in wanted if (band := _band(rows, name, low, high, fewest)) is not None]
    stop, train = (None, None) if weights else _thresholds(rows)
    spared = rows["cluster"].unique()
    if fewest == FEWEST or len(spared) == 1:  # one that is judged has a cluster left out as it is
        spared = spared[:0]
    return Level(
        rule=rule_of(level, k).name,
        cost=float(rows["cost"].mean()),
        skill=_skill(rows),
        ratios=(float(rows["ratio"].min()), float(rows["ratio"].max())),
        checkpoints=(int(rows["checkpoints"].min()), int(rows["checkpoints"].max())),
        stop_below=stop,
        train_from=train,
        bands=tuple(bands),
        least_skill=min((_skill(rows[rows["cluster"] != name])[1] for name in spared), default=None),
    )


def _band(rows: pd.DataFrame, name: str, low: float | None, high: float | None, fewest: int) -> Band | None:
    """None with too few clusters."""
    own = rows
    if low is not None and high is not None:
        own = rows[(rows["kept"] >= low) & (rows["kept"] < high) & rows["clear"]]
    if own["cluster"].nunique() < fewest:
        return None
    sums = own.assign(number=1.0).groupby("cluster")[["hit", "regret", "number"]].sum().astype(float)
    drawn = draw_units(len(sums), resamples=RESAMPLES, seed=0) @ sums.to_numpy()  # (B, 3)
    hits, regrets, numbers = drawn.T
    prior = PRIOR * float(rows["hit"].mean())
    width = next((float(w) for w in WIDTHS if (own["reach"] <= w).mean() >= COVERAGE), 1.0)
    least, most = np.quantile(regrets / numbers, [TAIL, 1 - TAIL])
    rules = own[[rule for rule in NAMED if rule in own.columns]].dropna(axis=1).mean()
    return Band(
        name=name,
        low=None if low is None or np.isinf(low) else low,
        high=None if high is None or np.isinf(high) else high,
        pairs=len(own.drop_duplicates(["run", "ratio"])),
        settings=int(own["setting"].nunique()),
        clusters=len(sums),
        hits=float(own["hit"].mean()),
        confidence=float(np.quantile((hits + prior) / (numbers + PRIOR), STATED)),
        regret=(float(own["regret"].mean()), float(least), float(most)),
        trivial=str(rules.round(9).idxmin()),
        trivial_regret=float(rules.min()),
        width=width,
        coverage=float((own["reach"] <= width).mean()),
    )


def _skill(rows: pd.DataFrame) -> tuple[float, float, float]:
    """As on the scoreboard, each setting counting once: 1 - regret / that of the best rule of thumb that applies to
    all; with one cluster -1 to 1, nothing being known."""
    names = [name for name in NAMED if name in rows.columns and rows[name].notna().all()]
    means = rows.groupby(["cluster", "setting"])[["regret", *names]].mean()
    baseline = str(means[names].mean().round(9).idxmin())
    sums = means.groupby("cluster")[["regret", baseline]].sum().to_numpy()
    mean = float(1 - sums[:, 0].sum() / sums[:, 1].sum()) if sums[:, 1].sum() > 0 else 0.0
    if len(sums) < 2 or not sums[:, 1].sum() > 0:
        return mean, -1.0, 1.0
    drawn = draw_units(len(sums), resamples=RESAMPLES, seed=0) @ sums
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.quantile(1 - drawn[:, 0] / drawn[:, 1], [TAIL, 1 - TAIL])
    return mean, float(low), float(high)


def _thresholds(rows: pd.DataFrame) -> tuple[float, float]:
    """The two shares kept that best tell the measured regimes apart, by balanced accuracy; the smallest of equally
    good ones."""
    below = {label: own["kept"].to_numpy(float)[:, None] < THRESHOLDS for label, own in rows.groupby("label")}
    shares = {label: values.mean(axis=0) for label, values in below.items()}  # (T,): what lies below each threshold
    early, either, late = (shares.get(label) for label in LABELS)
    recalls = np.zeros((len(THRESHOLDS), len(THRESHOLDS)))  # by stop_below, train_from
    recalls += 0 if early is None else early[:, None]
    recalls += 0 if late is None else 1 - late[None, :]
    recalls += 0 if either is None else either[None, :] - either[:, None]
    allowed = np.triu(np.ones_like(recalls, bool))
    stop, train = np.unravel_index(np.argmax(np.where(allowed, recalls.round(9), -1)), recalls.shape)
    return float(THRESHOLDS[stop]), float(THRESHOLDS[train])


if __name__ == "__main__":
    sys.exit(main())
