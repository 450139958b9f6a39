"""Past studies as trials of advice: what each level would have seen of one dense run, and how its pick fared.

A trial is judged on its own dense run, since a user has one: the best checkpoint is that of the run's mean test score
over fine-tune seeds, and the tie set lies within one fine-tune s.d. of it (`analysis.predictors.yardstick`). A pilot is
played with each fine-tune seed, and its regret and whether it hit are judged on the others, as on the scoreboard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from twore.advise.deciding import Seen, see, unclear
from twore.advise.levels import LEVELS, rule_of
from twore.advise.shape import Shape
from twore.analysis.boundary import regime_labels
from twore.analysis.evaluation import blind, judged_on, trials
from twore.analysis.predictors import Yardstick, yardstick
from twore.analysis.rules import axes, trivial_rules
from twore.analysis.settings import SettingTables, clusters, complete_ratios, settings_of, split_dense_seeds

PILOTS = (2, 3, 4)  # cells a ratio that are calibrated; more of the small grids we have is most of the grid
KINDS = {"cifar": "batchnorm", "translation": "outputs"}  # kind of task in study.yaml -> how its probes are repaired
NAMED = tuple(rule.name for rule in trivial_rules() if rule.name != "random epoch")
WIDTHS = np.round(np.linspace(0, 1, 21), 2)  # of intervals that are tried
BEYOND = 2.0  # the width of an interval that does not hold the best epoch at any width


@dataclass(frozen=True, eq=False)
class Trial:
    """One play of one level on one dense run.

    level, k: as in `decide`; setting, run, cluster: labels; kind: a value of KINDS, None if not known; cost: share of
    the grid; seen: what the verdict may rest on.
    rows, a row a ratio: ratio; best (epoch); pick; hit (bool); regret; gain (best minus final, points); label (the
        measured regime); checkpoints (number); kept (`Shape.kept`); reach (share of the signal's range that an
        interval needs to hold the best epoch); clear (whether the signal itself is ground for an answer,
        `deciding.unclear`); and the regret of each rule of thumb under its name
    """

    level: str
    k: int | None
    setting: str
    run: str
    cluster: str
    kind: str | None
    cost: float
    seen: Seen
    rows: pd.DataFrame


def collect(sources: Iterable[Path | str | SettingTables], *, every: int = 1) -> list[Trial]:
    """Every level played on every dense run of run folders and settings; levels whose tables are missing are left out.

    every: of the checkpoints that count, the final one and every so many before it.
    ValueError when two settings have one name, or nothing can be played at all.
    """
    settings: list[tuple[SettingTables, str | None]] = []
    for source in sources:
        if isinstance(source, SettingTables):
            settings.append((source, None))
        else:
            settings += [(setting, _kind(Path(source))) for setting in settings_of(source)]
    names = [setting.name for setting, _ in settings]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two settings are called {twice!r}: the same folder given twice? Else name them apart")
    runs = [(setting.name, kind, run) for setting, kind in settings for run in _runs(setting, every)]
    found = []
    for (name, kind, run), cluster in zip(runs, clusters([run for _, _, run in runs])):
        yard, labels = yardstick(run.results), regime_labels(run.results, resamples=200)["label"].tolist()
        batches: Seen | None = None
        for level, k, tables, judged in _plays(run, yard):
            seen = see(tables, level=level, k=k, batches=batches if level == "pilot" else None)
            batches = seen if level == "batches" else batches
            if len(seen.picks) == len(yard.ratios):
                rows, cost = _rows(seen, judged, labels), rule_of(level, k).cost_of(run)
                found.append(Trial(level, k, name, run.name, cluster, kind, cost, seen, rows))
    if not found:
        raise ValueError("no level of advice can be played on these settings: they need checkpoints.csv or probes.csv")
    return found


def played(trials: Sequence[Trial], level: str, k: int | None = None) -> list[Trial]:
    """Those of a level."""
    return [trial for trial in trials if (trial.level, trial.k) == (level, k)]


def as_rows(trials: Sequence[Trial]) -> pd.DataFrame:
    """Their rows under each other, with setting, run, cluster and cost."""
    parts = [t.rows.assign(setting=t.setting, run=t.run, cluster=t.cluster, cost=t.cost) for t in trials]
    return pd.concat(parts, ignore_index=True)


def _runs(setting: SettingTables, every: int) -> Iterator[SettingTables]:
    for part in split_dense_seeds(setting):
        whole = complete_ratios(part)
        whole = None if whole is None else complete_ratios(_thinned(whole, every))
        if whole is not None:
            yield whole


def _thinned(run: SettingTables, every: int) -> SettingTables:
    """With the final checkpoint and every so many before it; an unpruned initialisation stays. Probes of checkpoints
    without cells go: a pick among them could not be judged."""
    epochs = axes(run)[1]
    out = np.setdiff1d(epochs, epochs[::-1][::every])
    tables = {name: getattr(run, name) for name in ("results", "checkpoints", "probes", "pairs")}
    thinned: dict[str, Any] = {k: None if t is None else t[~t["epoch"].isin(out)] for k, t in tables.items()}
    if run.probes is not None:
        thinned["probes"] = thinned["probes"][thinned["probes"]["epoch"].isin(epochs)]
    return replace(run, **thinned)


def _plays(run: SettingTables, yard: Yardstick) -> Iterator[tuple[str, int | None, SettingTables, Yardstick]]:
    """(level, k, what it sees, what it is judged with)"""
    for level in LEVELS[:2]:
        yield level, None, blind(run), yard
    for tables, rest in trials(run):
        judged = judged_on(rest, yard)
        for k in PILOTS:
            yield "pilot", k, tables, judged


def _rows(seen: Seen, yard: Yardstick, labels: list[str]) -> pd.DataFrame:
    rows = []
    for i, ratio in enumerate(float(ratio) for ratio in yard.ratios):
        shape, pick, best = seen.shapes.get(ratio), seen.picks[ratio], float(yard.epochs[yard.oracles[i]])
        regret = yard.reference[i] - yard.scores[i]  # (E,)
        own: dict[str, Any] = {
            "ratio": ratio,
            "best": best,
            "pick": pick,
            "hit": bool(yard.ties[i, _index(yard, pick)]),
        }
        own |= {"regret": regret[_index(yard, pick)], "gain": regret[-1], "label": labels[i]}
        own |= {"checkpoints": 0 if shape is None else len(shape.epochs), "reach": _reach(shape, best, pick)}
        own |= {"kept": np.nan if shape is None else shape.kept}
        own |= {"clear": shape is not None and unclear(shape, pick, seen.level) is None}
        rows.append(own | {rule: regret[_index(yard, epoch)] for rule, epoch in seen.trivial[ratio].items()})
    return pd.DataFrame(rows)


def _index(yard: Yardstick, epoch: float) -> int:
    return int(np.argmin(np.abs(yard.epochs - epoch)))


def _reach(shape: Shape | None, best: float, pick: float) -> float:
    """The smallest width whose interval holds the best epoch, in [0, 1]; BEYOND where none does."""
    for width in WIDTHS if shape is not None else ():
        low, high = shape.near(float(width))  # type: ignore[union-attr]
        if min(low, pick) <= best <= max(high, pick):
            return float(width)
    return BEYOND


def _kind(folder: Path) -> str | None:
    """How the probes of a run folder were repaired, by the kind of its task; None when that is not known.

    ValueError for a study.yaml that is damaged.
    """
    path = folder / "study.yaml"
    try:
        study = yaml.safe_load(path.read_text()) if path.exists() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged: copy it again from where the study ran") from error
    task = study.get("task") if isinstance(study, dict) else None
    return KINDS.get(str(task.get("kind"))) if isinstance(task, dict) else None
