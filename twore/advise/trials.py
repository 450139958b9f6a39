"""Past studies as trials of advice: what each level would have seen of one dense run, and how its pick fared.

A trial is judged on its own dense run, since a user has one: the best checkpoint is that of the run's mean test score
over fine-tune seeds, and the tie set lies within one fine-tune s.d. of it (`analysis.predictors.yardstick`). A pilot is
played with each fine-tune seed, its regret is measured on the others (`analysis.evaluation.trials`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from twore.advise.levels import LEVELS, rule_of, trivial_picks
from twore.advise.shape import shapes
from twore.analysis.boundary import regime_labels
from twore.analysis.evaluation import blind, trials
from twore.analysis.grid import mean_grid
from twore.analysis.predictors import Yardstick, yardstick
from twore.analysis.rules import trivial_rules
from twore.analysis.settings import SettingTables, clusters, complete_ratios, settings_of, split_dense_seeds

PILOTS = (2, 3, 4)  # cells a ratio that are calibrated; more of the small grids we have is most of the grid
KINDS = {"cifar": "batchnorm", "translation": "outputs"}  # kind of task in study.yaml -> how its probes are repaired
NAMED = [rule.name for rule in trivial_rules() if rule.name != "random epoch"]


@dataclass(frozen=True, eq=False)
class Trial:
    """One play of one level on one dense run.

    level, k: as in `decide`; seen: the tables the level may see; setting, run, cluster: labels; kind: see KINDS, None if
    not known; cost: share of the grid.
    rows, a row a ratio: ratio, best (epoch), ties (tuple of epochs), pick, hit, regret, gain (best minus final, points),
        label (measured regime), checkpoints, last, low, peak of the signal (NaN without), reach (share of the signal's
        range that an interval needs to hold the best epoch), and the regret of each rule of thumb under its name
    """

    level: str
    k: int | None
    setting: str
    run: str
    cluster: str
    kind: str | None
    cost: float
    seen: SettingTables
    rows: pd.DataFrame


def collect(sources: Iterable[Path | str | SettingTables]) -> list[Trial]:
    """Every level played on every dense run of run folders and settings; levels whose tables are missing are left out.

    ValueError when two settings have one name, or nothing can be played at all.
    """
    settings: list[SettingTables] = []
    kinds: list[str | None] = []
    for source in sources:
        found = [source] if isinstance(source, SettingTables) else settings_of(source)
        settings += found
        kinds += [None if isinstance(source, SettingTables) else _kind(Path(source))] * len(found)
    names = [setting.name for setting in settings]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two settings are called {twice!r}: the same folder given twice? Else name them apart")
    runs = [(setting, kind, part) for setting, kind in zip(settings, kinds) for part in _runs(setting)]
    found_trials = []
    for (setting, kind, part), cluster in zip(runs, clusters([part for _, _, part in runs])):
        yard, labels = yardstick(part.results), regime_labels(part.results, resamples=200)["label"].tolist()
        for level, k, seen, judged in _plays(part, yard):
            rule = rule_of(level, k)
            if rule.pick(seen) is None:
                continue
            rows = _rows(seen, judged, labels, level, k)
            cost = rule.cost_of(part)
            found_trials.append(Trial(level, k, setting.name, part.name, cluster, kind, cost, seen, rows))
    if not found_trials:
        raise ValueError("no level of advice can be played on these settings: they need checkpoints.csv or probes.csv")
    return found_trials


def played(trials: Sequence[Trial], level: str, k: int | None = None) -> list[Trial]:
    """Those of a level."""
    return [trial for trial in trials if (trial.level, trial.k) == (level, k)]


def as_rows(trials: Sequence[Trial]) -> pd.DataFrame:
    """Their rows under each other, with setting, run and cluster."""
    parts = [t.rows.assign(setting=t.setting, run=t.run, cluster=t.cluster, cost=t.cost) for t in trials]
    return pd.concat(parts, ignore_index=True)


def _runs(setting: SettingTables) -> Iterator[SettingTables]:
    for part in split_dense_seeds(setting):
        whole = complete_ratios(part)
        if whole is not None:
            yield whole


def _plays(part: SettingTables, yard: Yardstick) -> Iterator[tuple[str, int | None, SettingTables, Yardstick]]:
    """(level, k, what it sees, what it is judged with)"""
    for level in LEVELS[:2]:
        yield level, None, blind(part), yard
    for seen, rest in trials(part):
        scores = mean_grid(rest).to_numpy(float)
        reference = scores[np.arange(len(yard.ratios)), yard.oracles]
        judged = Yardstick(**{**vars(yard), "scores": scores, "reference": reference})
        for k in PILOTS:
            yield "pilot", k, seen, judged


def _rows(seen: SettingTables, yard: Yardstick, labels: list[str], level: str, k: int | None) -> pd.DataFrame:
    picks = rule_of(level, k).pick(seen) or {}
    known, trivial = shapes(seen, level), trivial_picks(seen)
    rows = []
    for i, ratio in enumerate(yard.ratios):
        pick = float(picks[ratio])  # type: ignore[arg-type]
        shape = known.get(float(ratio))
        best = float(yard.epochs[yard.oracles[i]])

        def loss(epoch: float, i: int = i) -> float:
            return float(yard.reference[i] - yard.scores[i, int(np.argmin(np.abs(yard.epochs - epoch)))])

        row = {
            "ratio": float(ratio), "best": best, "ties": tuple(yard.epochs[yard.ties[i]].tolist()), "pick": pick,
            "hit": bool(yard.ties[i, np.argmin(np.abs(yard.epochs - pick))]), "regret": loss(pick),
            "gain": loss(float(yard.epochs[-1])), "label": labels[i],
            "checkpoints": 0 if shape is None else len(shape.epochs),
            "last": np.nan if shape is None else shape.last, "low": np.nan if shape is None else shape.low,
            "peak": np.nan if shape is None else shape.peak, "reach": _reach(shape, best, pick),
        }  # fmt: skip
        rows.append(row | {name: loss(trivial[float(ratio)][name]) for name in trivial[float(ratio)]})
    return pd.DataFrame(rows)


def _reach(shape: object, best: float, pick: float) -> float:
    """The smallest width whose interval holds the best epoch, in [0, 1]; above 1 where none does."""
    for width in WIDTHS:
        low, high = shape.near(width) if shape is not None else (np.inf, -np.inf)  # type: ignore[attr-defined]
        if min(low, pick) <= best <= max(high, pick):
            return float(width)
    return 2.0


WIDTHS = np.round(np.linspace(0, 1, 21), 2)  # of intervals that are tried


def _kind(folder: Path) -> str | None:
    """How the probes of a run folder were repaired, by the kind of its task; None when that is not known."""
    path = folder / "study.yaml"
    if not path.exists():
        return None
    task = (yaml.safe_load(path.read_text()) or {}).get("task", {})
    return KINDS.get(task.get("kind"))
