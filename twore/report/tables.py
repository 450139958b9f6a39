"""Reading a run folder, and finding in its tables the settings that a figure compares.

`reference` is the setting that the single-setting figures show, `scaling_rows` the families of settings that differ
from it in one quantity only (report figures 4, 5 and 9: model depth, amount of training data, or any other swept
field).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from twore.analysis import setting_columns
from twore.analysis.settings import table_file

FIRST_AXES = ("depth", "layers", "data_percent")  # the report's two rows, in its order
OPTIONAL = ("checkpoints", "pairs", "curves", "failures", "samples")  # tables that a run may lack
MOST_BRACKET = 12  # characters of a bracket that still fits over a panel
FALLING = (
    "depth",
    "layers",
    "width",
    "d_model",
)  # large model first, so that Regime II grows from left to right, as in figure 4
AXIS_LABELS = {
    "depth": "model depth (layers)",
    "layers": "model depth (layers of the encoder, and of the decoder)",
    "d_model": "model width",
    "width": "model width (channels of the first stage)",
    "data_percent": "training data (%)",
}


@dataclass(frozen=True, eq=False)
class RunTables:
    """The tables of a run folder; None for one that is not there."""

    study: dict[str, Any]
    results: pd.DataFrame
    checkpoints: pd.DataFrame | None
    pairs: pd.DataFrame | None
    curves: pd.DataFrame | None
    failures: pd.DataFrame | None
    samples: pd.DataFrame | None
    scoreboard: pd.DataFrame | None

    @property
    def score_label(self) -> str:
        """What a score is and its unit, as the study says it; "score" when it does not."""
        return str(self.study.get("score_label") or "score")


@dataclass(frozen=True, eq=False)
class ScalingRow:
    """Settings that differ in `column` only, in the order they are drawn in.

    label: axis label with its unit · values: of `column` · settings: their labels in the column `setting`.
    """

    column: str
    label: str
    values: list[Any]
    settings: list[str]

    @property
    def short(self) -> str:
        """The label where there is little room: without what is in brackets, but for a unit."""
        bracket = self.label.partition(" (")[2]
        return self.label if len(bracket) < MOST_BRACKET else self.label.partition(" (")[0]


def read_tables(folder: Path) -> RunTables:
    """The tables of a run folder. FileNotFoundError without results.csv, ValueError when it has no rows."""
    if not any((folder / f"results.{ending}").exists() for ending in ("csv", "csv.gz")):
        raise FileNotFoundError(f"no results.csv in {folder}: run the study with this folder as --out first")
    results = _read(table_file(folder, "results"))
    if results is None or results.empty:
        raise ValueError(f"results.csv in {folder} has no rows yet: let the study finish a few cells first")
    study_file = folder / "study.yaml"
    study = yaml.safe_load(study_file.read_text(encoding="utf-8")) if study_file.exists() else {}
    optional = {name: _read(table_file(folder, name)) for name in OPTIONAL}
    board = table_file(folder, "scoreboard")
    optional["scoreboard"] = None if board is None else pd.read_csv(board)
    return RunTables(study=study or {}, results=results, **optional)


def of_setting(table: pd.DataFrame | None, setting: str) -> pd.DataFrame | None:
    """The rows of one setting; None when the table is missing or has none."""
    if table is None:
        return None
    rows = table[table["setting"] == setting]
    return None if rows.empty else rows


def settings(results: pd.DataFrame) -> list[str]:
    """The labels of the settings, in the order of the table."""
    return list(dict.fromkeys(results["setting"]))


def name_of(setting: str) -> str:
    """A label for people: the study writes it; only the empty one, of a study with one setting, needs a name."""
    return setting or "the only setting"


def scaling_rows(results: pd.DataFrame) -> list[ScalingRow]:
    """One row for each setting column that varies around the reference while all others stay; depth and data first."""
    swept = swept_columns(results)
    frame = _distinct(results, swept)
    base = reference(results)
    rows = []
    for column in [c for c in FIRST_AXES if c in swept] + [c for c in swept if c not in FIRST_AXES]:
        others = [name for name in swept if name != column]
        same = (frame[others].astype(str) == frame.loc[base, others].astype(str)).all(axis=1)
        family = frame[same].sort_values(column, ascending=column not in FALLING)
        if len(family) >= 2:
            rows.append(ScalingRow(column, axis_label(column), family[column].tolist(), list(family.index)))
    return rows


def reference(results: pd.DataFrame) -> str:
    """The setting with the most neighbours, which differ in one quantity; of equals the smallest model on most data."""
    swept = swept_columns(results)
    frame = _distinct(results, swept)
    as_text = frame.astype(str)

    def rank(setting: str) -> tuple[float, ...]:
        neighbours = int(((as_text != as_text.loc[setting]).sum(axis=1) == 1).sum())
        size = [float(pd.to_numeric(frame[c])[setting]) for c in FALLING if c in swept]
        data = [-float(pd.to_numeric(frame["data_percent"])[setting])] if "data_percent" in swept else []
        return (-neighbours, *size, *data)

    return min(frame.index, key=rank)  # the first of exact equals, as in the table


def swept_columns(results: pd.DataFrame) -> list[str]:
    """The setting columns with more than one value."""
    return [name for name in setting_columns(results) if results[name].astype(str).nunique() > 1]


def differences(results: pd.DataFrame) -> dict[str, str]:
    """Each setting in few words: in what it differs from the reference, which is named whole."""
    swept, base = swept_columns(results), reference(results)
    frame = _distinct(results, swept)
    words = {}
    for name in frame.index:
        own = [c for c in swept if str(frame.loc[name, c]) != str(frame.loc[base, c])]
        words[name] = " ".join(f"{column}={text_of(frame.loc[name, column])}" for column in own) or "the reference"
    return words


def text_of(value: Any) -> str:
    """A value of a swept field for people: 100, not 100.0."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def axis_label(column: str) -> str:
    """The label of a swept field, with its unit where it is known."""
    return AXIS_LABELS.get(column, column.replace("_", " ").replace(".", " "))


def _read(path: Path | None) -> pd.DataFrame | None:
    if path is None:
        return None
    texts = path.name.startswith("samples.")  # where "None" and "nan" are words
    empty = {"ratio": [""], "finetune_seed": [""]}
    table = pd.read_csv(path, keep_default_na=False, na_values=empty) if texts else pd.read_csv(path)
    if "setting" in table.columns:
        label = table["setting"].astype(object)  # a study with one setting may leave it empty
        table["setting"] = label.where(label.notna(), "").astype(str)
    else:
        table.insert(0, "setting", "")
    return table


def _distinct(results: pd.DataFrame, swept: list[str]) -> pd.DataFrame:
    """A row a setting: index its label, columns the swept quantities."""
    return results.drop_duplicates("setting").set_index("setting")[swept]
