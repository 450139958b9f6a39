"""Short pilots: every checkpoint is fine-tuned for a fraction of the fine-tuning, and the best of that is pruned.

A short pilot's cells are those of a second study of the same dense runs, with another `finetune` (fewer epochs, a share
of one, a higher rate) and as a rule one seed. Its results are read beside the grid's:

    with_short_pilots([Path("runs/full")], [Path("runs/short")])    # settings whose probes have short_score, short_cost

Cells of the two studies belong together when their checkpoints do: by the keys in checkpoints.csv, which are hashes of
everything that makes a dense run, so it does not matter how settings are called. The choice is made on the short cells'
validation score where there is one, and judged, like any other, on the test scores of the full grid. Short cells have
fine-tune seeds that the grid has not: with an equal seed one is about the beginning of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from twore.analysis.pilots import shortlist_pilot
from twore.analysis.regimes import selection_column
from twore.analysis.rules import Predictor, axes, probes_share, signal_rule
from twore.analysis.settings import SettingTables, gather, settings_of
from twore.analysis.spared import cells_price, spared

SCORE, COST = "short_score", "short_cost"
LENGTH = ("epochs", "share")  # fields of `finetune` whose product is how long it is, in passes over the data
VARIANT = ["folder", "label"]  # of a short cell: which fine-tuning it is
DIGITS = 9  # of ratios, when tables are joined by them; as RATIO_TOLERANCE


def short_pilots(settings: Sequence[SettingTables]) -> list[Predictor]:
    """Where some setting has short cells: the best of them, of neighbours averaged, as a shortlist; and best and
    shortlist spared where pruning does not break the final checkpoint."""
    if not any(s.probes is not None and SCORE in s.probes.columns for s in settings):
        return []
    probe = _signal("a few batches", 1)
    return [
        short_pilot(), short_pilot(window=3), shortlist_pilot(probe), spared(short_pilot(), _price, "short pilot"),
        spared(shortlist_pilot(probe), _shortlist_price, "pilot of 3 by short pilot"),
    ]  # fmt: skip


def short_pilot(window: int = 1) -> Predictor:
    """Largest score after the short fine-tuning, averaged over `window` neighbouring checkpoints."""
    return _signal("pilot", window)


def short_cost(setting: SettingTables) -> float:
    """Share of the grid's fine-tuning epochs that all its short cells cost."""
    return probes_share(setting, COST)


def with_short_pilots(folders: Sequence[Path], short: Sequence[Path]) -> list[SettingTables]:
    """The settings of run folders, those with short cells in `short` with these in their probes:

        short_score  of the checkpoint pruned to this ratio, mean over the short study's fine-tune seeds, in points
        short_cost   what these cells cost, as a share of fine-tuning one cell of the full grid

    ValueError for a folder without study.yaml (the lengths of both fine-tunings are read there) or without keys in its
    checkpoints.csv, for a dense run with two different short fine-tunings or with a fine-tune seed of the grid among
    the short ones, and where nothing fits together.
    """
    cells = pd.concat([_short_cells(folder) for folder in dict.fromkeys(map(Path, short))], ignore_index=True)
    found, fits = [], 0
    for setting, length in ((s, n) for folder in folders for s, n in _with_lengths(folder)):
        own = _joined(setting, cells, length)
        fits += own is not setting
        found.append(own)
    if not fits:
        raise ValueError("the short pilot has none of these dense runs: copy their store before it is run")
    return gather(found)


def _price(setting: SettingTables, ratios: set[float]) -> float:
    return short_cost(setting) * len(ratios) / len(axes(setting)[0])


def _shortlist_price(setting: SettingTables, ratios: set[float]) -> float:
    return _price(setting, ratios) + cells_price(_signal("a few batches", 1), best=2)(setting, ratios)


def _signal(needs: str, window: int) -> Predictor:
    name = f"short pilot: largest {SCORE}" + (f", over {window} checkpoints" if window > 1 else "")
    return signal_rule(SCORE, better="high", table="probes", needs=needs, cost=short_cost, window=window, name=name)


def _joined(setting: SettingTables, cells: pd.DataFrame, length: float) -> SettingTables:
    """The setting with the short cells of its checkpoints; itself where there are none."""
    own = _keys(setting).merge(cells, on="key")
    if len(own[VARIANT].drop_duplicates()) > 1:  # of one dense run: the one that is called as this setting is, if any
        own = own[own["label"] == setting.results["setting"].iloc[0]]
        if len(own[VARIANT].drop_duplicates()) != 1:
            raise ValueError(f"{setting.name} has several short fine-tunings: keep one of each dense run in the pilot")
    if own.empty:
        return setting
    common = sorted({int(seed) for seed in own["finetune_seed"]} & {int(s) for s in setting.results["finetune_seed"]})
    if common:
        raise ValueError(
            f"{setting.name} would be judged on fine-tune seeds that the short pilot chose with "
            f"({', '.join(map(str, common))}): run `twore short` again, which takes others"
        )
    by = ["dense_seed", "epoch", "ratio"]
    own = own.groupby(by).agg(**{SCORE: ("chosen_on", "mean"), COST: ("length", "sum")}).reset_index()
    own[COST] /= length
    if setting.probes is None:
        return replace(setting, probes=own)
    probes = _with_seed(setting.probes).drop(columns=[SCORE, COST], errors="ignore")
    return replace(setting, probes=probes.assign(ratio=probes["ratio"].round(DIGITS)).merge(own, on=by, how="outer"))


def _short_cells(folder: Path) -> pd.DataFrame:
    """A row a short cell: key of its checkpoint, ratio, finetune_seed, chosen_on (its score), length, folder, label."""
    parts = []
    for setting, length in _with_lengths(folder):
        own = setting.results.drop(columns="key", errors="ignore")  # of the cells: the checkpoints' own is wanted
        cells = _with_seed(own).merge(_keys(setting), on=["dense_seed", "epoch"])
        chosen_on, label = cells[selection_column(cells)], cells["setting"]
        cells = cells.assign(chosen_on=chosen_on, length=length, folder=str(folder), label=label)
        cells["ratio"] = cells["ratio"].round(DIGITS)
        parts.append(cells[["key", "ratio", "finetune_seed", "chosen_on", "length", *VARIANT]])
    return pd.concat(parts, ignore_index=True)


def _keys(setting: SettingTables) -> pd.DataFrame:
    """dense_seed, epoch, key of the setting's checkpoints."""
    if setting.checkpoints is None or "key" not in setting.checkpoints.columns:
        raise ValueError(f"{setting.name} has no keys in checkpoints.csv, by which short cells find their grid")
    return _with_seed(setting.checkpoints)[["dense_seed", "epoch", "key"]].dropna()


def _with_lengths(folder: Path) -> list[tuple[SettingTables, float]]:
    """The settings of a run folder, each with the length of its fine-tuning in passes over the data."""
    path = folder / "study.yaml"
    if not path.exists():
        raise ValueError(f"no study.yaml in {folder}: it says how long the fine-tuning is, which the cost depends on")
    usual: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["finetune"]
    return [(setting, _length(setting, usual)) for setting in settings_of(folder)]


def _length(setting: SettingTables, usual: Mapping[str, Any]) -> float:
    """Epochs times share: of the setting's own columns where the study sweeps them, else the study's."""
    length = 1.0
    for name in LENGTH:
        column = f"finetune_{name}"
        own = setting.results[column].iloc[0] if column in setting.results.columns else usual.get(name, 1.0)
        length *= float(own)
    if length <= 0:
        raise ValueError(f"{setting.name} fine-tunes for no epoch: there is nothing to be a share of")
    return length


def _with_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table if "dense_seed" in table.columns else table.assign(dense_seed=0)
