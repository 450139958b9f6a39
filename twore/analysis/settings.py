"""The tables of one setting, as predictors read them; and how run folders fall apart into settings.

Settings that share a dense run are not independent: `clusters` finds them by the keys of their checkpoints, which are
hashes of everything that makes a dense run.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from twore.analysis.grid import match_ratios, one_setting

TABLES = ("results", "checkpoints", "pairs", "curves", "probes")  # each a file `<name>.csv` of a run folder


@dataclass(frozen=True, eq=False)
class SettingTables:
    """The tables of ONE setting; None for one that is not there.

    name         a label for people, unique among the settings compared
    results      a row a cell: epoch, ratio, finetune_seed, score, perhaps dense_seed and valid_score
    checkpoints  a row a checkpoint: epoch, perhaps dense_seed, lr, valid_score, key and any metric
    pairs        a row a pair of fine-tune seeds: epoch, ratio, pair and pair metrics
    curves       a row an epoch of the dense run: epoch, lr
    probes       a row a checkpoint and ratio: epoch, ratio, perhaps dense_seed, and metrics that need no fine-tuning
    cluster      settings of equal cluster are not independent; None: found by `clusters`
    """

    name: str
    results: pd.DataFrame
    checkpoints: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    probes: pd.DataFrame | None = None
    cluster: str | None = None


def settings_of(source: Path | str | Mapping[str, pd.DataFrame], *, name: str | None = None) -> list[SettingTables]:
    """The settings of a run folder, or of tables by name ("results", "checkpoints", ...), in the order of the results.

    name: of the study, put before the label of each setting; by default the folder's last two parts.
    Raises FileNotFoundError for a folder without results.csv, ValueError when it has no rows or a table is damaged.
    """
    if isinstance(source, (str, Path)):
        folder = Path(source)
        tables = _read_folder(folder)
        name = name or "/".join(folder.resolve().parts[-2:])
    else:
        tables = {key: table for key, table in source.items() if table is not None}
        unknown = sorted(set(tables) - set(TABLES))
        if unknown or "results" not in tables:
            raise ValueError(f"tables are {', '.join(TABLES)}, results at least: got {', '.join(tables) or 'none'}")
        tables = {key: _labelled(table) for key, table in tables.items()}
    found = []
    for label in dict.fromkeys(tables["results"]["setting"]):
        own = {key: table[table["setting"] == label] for key, table in tables.items()}
        present = {key: table for key, table in own.items() if len(table)}
        title = ": ".join(part for part in (name, label) if part) or "the only setting"
        found.append(SettingTables(name=title, **present))
    return found


def gather(sources: Iterable[Path | str | SettingTables]) -> list[SettingTables]:
    """Run folders and settings, mixed, as one list of settings. ValueError for none, or two of the same name."""
    found: list[SettingTables] = []
    for source in sources:
        found += [source] if isinstance(source, SettingTables) else settings_of(source)
    if not found:
        raise ValueError("no setting to compare: name at least one run folder")
    names = [setting.name for setting in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two settings are called {twice!r}: the same folder given twice? Else name them apart")
    return found


def clusters(settings: Sequence[SettingTables]) -> list[str]:
    """A label of its cluster for each setting: the name of the first setting it depends on, directly or by others.

    Settings belong together when their `cluster` is equal, or when a key stands in the checkpoints of both, that is
    when they prune the same dense run.
    """
    labels = list(range(len(settings)))
    owner: dict[str, int] = {}
    for i, setting in enumerate(settings):
        marks = [] if setting.cluster is None else [f"cluster {setting.cluster}"]
        if setting.checkpoints is not None and "key" in setting.checkpoints.columns:
            marks += [f"key {key}" for key in setting.checkpoints["key"].dropna().unique()]
        for mark in marks:
            first = labels[owner.setdefault(mark, i)]
            if first != labels[i]:  # merge: everything labelled as this one now depends on the other too
                low, high = sorted((first, labels[i]))
                labels = [low if label == high else label for label in labels]
    return [settings[label].name for label in labels]


def split_dense_seeds(setting: SettingTables) -> list[SettingTables]:
    """A setting for each dense seed, all in one cluster: how a rule does on a single dense run, as a user has it."""
    table = one_setting(setting.results)
    seeds = sorted(table["dense_seed"].unique())
    if len(seeds) == 1:
        return [setting]
    parts = []
    for seed in seeds:
        own = {}
        for name in TABLES:
            frame = getattr(setting, name)
            if frame is not None and "dense_seed" in frame.columns:
                frame = frame[frame["dense_seed"] == seed]
                frame = frame if len(frame) else None
            own[name] = frame
        parts.append(
            replace(setting, name=f"{setting.name} dense_seed={seed}", cluster=setting.cluster or setting.name, **own)
        )
    return parts


def complete_ratios(setting: SettingTables) -> SettingTables | None:
    """The setting with the ratios whose every checkpoint was run with every dense seed; None when fewer than one
    ratio or two epochs are left.

    A rule compared on a grid with holes would be judged on what happened to finish.
    """
    table = one_setting(setting.results)
    expected = table["epoch"].nunique() * table["dense_seed"].nunique()
    counts = table.drop_duplicates(["ratio", "epoch", "dense_seed"]).groupby("ratio").size()
    whole = counts.index[counts == expected]
    if len(whole) == 0 or table["epoch"].nunique() < 2:
        return None
    keep = pd.Series(match_ratios(setting.results["ratio"].to_numpy(float))).isin(whole).to_numpy()
    return replace(setting, results=setting.results[keep])


def table_file(folder: Path, name: str) -> Path | None:
    """Where a run folder has a table: NAME.csv, or NAME.csv.gz in a folder packed to be kept; None if empty."""
    for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
        if path.exists() and path.stat().st_size > 1:
            return path
    return None


def _read_folder(folder: Path) -> dict[str, pd.DataFrame]:
    if not any((folder / f"results.{ending}").exists() for ending in ("csv", "csv.gz")):
        raise FileNotFoundError(f"no results.csv in {folder}: run the study with this folder as --out first")
    files = {name: path for name in TABLES if (path := table_file(folder, name)) is not None}
    tables = {name: _labelled(_read(path)) for name, path in files.items()}
    for name, table in tables.items():
        needed = ("epoch",) if name in ("checkpoints", "curves") else ("epoch", "ratio")
        missing = next((column for column in needed if column not in table.columns), None)
        if missing is not None:
            raise ValueError(f"{files[name]} has no column {missing}: it is no table of a study, or is damaged")
    if "results" not in tables or tables["results"].empty:
        raise ValueError(f"results.csv in {folder} has no rows yet: let the study finish a few cells first")
    return tables


def _read(path: Path) -> pd.DataFrame:
    """A table; ValueError with the file's name when it is none."""
    try:
        return pd.read_csv(path)
    except (
        EOFError,
        OSError,
        UnicodeDecodeError,
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        zlib.error,
    ) as error:
        raise ValueError(f"{path} is damaged, or no table: {str(error).splitlines()[0]}") from error


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """With a text column `setting`, "" where there is none: a study of one setting may leave it empty."""
    table = table.copy()
    if "setting" not in table.columns:
        table.insert(0, "setting", "")
    label = table["setting"].astype(object)
    table["setting"] = label.where(label.notna(), "").astype(str)
    return table
