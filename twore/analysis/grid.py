"""From the rows of `results.csv` to grids of scores: which columns name a setting, what is a replicate, what is
averaged.

A grid is a matrix of one setting: a row a prune ratio (ascending), a column a training epoch (ascending).
Letters: U units of replication, R ratios, E epochs.

Averages, everywhere in `twore.analysis`: over the fine-tune seeds of a dense seed first, then over the dense seeds. A
grid may be incomplete (a study that was killed): a cell is the mean of the rows there are, NaN where there is none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

NEEDED = ("epoch", "ratio", "score", "finetune_seed")
RATIO_TOLERANCE = 1e-9  # two ratios closer than this are the same ratio; our choice, as in the public contract
RUN_COLUMNS = frozenset(  # columns of results.csv that never name a setting, wherever a frame made by hand puts them
    ["setting", "dense_seed", "epoch", "ratio", "density", "finetune_seed", "valid_score", "score", "train_loss",
     "revived", "key", "host", "seconds", "finished_at", "commit"]
)  # fmt: skip


def setting_columns(results: pd.DataFrame) -> list[str]:
    """The columns that say which setting a row belongs to: those left of `epoch` except `setting` and `dense_seed`."""
    columns = [str(name) for name in results.columns]
    if "epoch" not in columns:
        raise ValueError(f"the results need a column `epoch`; the columns are {columns}")
    return [name for name in columns[: columns.index("epoch")] if name not in RUN_COLUMNS]


def one_setting(results: pd.DataFrame) -> pd.DataFrame:
    """The checked rows of a single setting, with a `dense_seed` (0 where the frame has none) and equal ratios made
    equal.

    ValueError: a needed column is missing, there is no row, a number is not finite, or there are several settings.
    """
    for name in NEEDED:
        if name not in results.columns:
            raise ValueError(f"the results need a column `{name}`; the columns are {[str(c) for c in results.columns]}")
    if results.empty:
        raise ValueError("the results have no rows; finish at least one cell a ratio first")
    _refuse_several_settings(results)
    table = results.reset_index(drop=True)
    if "dense_seed" not in table.columns:
        table["dense_seed"] = 0
    for name in ("epoch", "ratio", "score"):
        table[name] = finite(table[name], name)
    if not table["ratio"].between(0, 1, inclusive="left").all():
        raise ValueError(f"ratio is the fraction removed, in [0, 1): got {_outside(table['ratio'])}")
    for name in ("dense_seed", "finetune_seed"):
        if table[name].isna().any():
            raise ValueError(f"`{name}` is missing in {int(table[name].isna().sum())} of {len(table)} rows; fill it in")
    if (table["epoch"] == table["epoch"].round()).all():
        table["epoch"] = table["epoch"].astype(int)
    table["ratio"] = match_ratios(table["ratio"].to_numpy())
    cell = ["dense_seed", "epoch", "ratio", "finetune_seed"]
    if table.duplicated(cell).any():
        twice = table.loc[table.duplicated(cell), cell].iloc[0].to_dict()
        raise ValueError(f"several rows for the cell {twice}: several settings? Pass one group of groupby('setting')")
    return table


def match_ratios(ratios: np.ndarray) -> np.ndarray:
    """Ratios within 1e-9 of their neighbour made one, the smallest, so that equal ratios compare equal. (N,) -> (N,)"""
    order = np.argsort(ratios, kind="stable")
    ascending = ratios[order]
    starts = np.diff(ascending, prepend=-np.inf) > RATIO_TOLERANCE  # (N,): True opens a group of equal ratios
    matched = np.empty_like(ascending)
    matched[order] = ascending[starts][np.cumsum(starts) - 1]
    return matched


def mean_grid(results: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """The mean of `column` in each cell of one setting, (R, E): index ratio ascending, columns epoch ascending.

    NaN where a cell has no row. Unit and range are those of the column.
    """
    table = one_setting(results)
    return pd.DataFrame(
        average(checked_grids(table, column, unit="dense")[1]),
        index=pd.Index(sorted(table["ratio"].unique()), name="ratio"),
        columns=pd.Index(sorted(table["epoch"].unique()), name="epoch"),
    )


def replication(results: pd.DataFrame) -> str | None:
    """What was repeated, and so carries the error: "dense" with two dense seeds or more, else "finetune", else None."""
    if "dense_seed" in results.columns and results["dense_seed"].nunique() >= 2:
        return "dense"
    return "finetune" if results["finetune_seed"].nunique() >= 2 else None


def unit_grids(
    results: pd.DataFrame, column: str = "score", *, unit: str | None = None
) -> tuple[list[int], np.ndarray]:
    """The seeds and a grid of `column` for each of them, (U, R, E); NaN where a unit lacks a cell.

    unit: "dense" (a grid a dense seed, mean over its fine-tune seeds), "finetune" (a grid a fine-tune seed, mean over
    the dense seeds); None takes what `replication` says, or "dense" when nothing was repeated.
    """
    return checked_grids(one_setting(results), column, unit=unit)


def checked_grids(table: pd.DataFrame, column: str, *, unit: str | None) -> tuple[list[int], np.ndarray]:
    """`unit_grids` for a table that `one_setting` has checked already."""
    if column not in table.columns:
        raise ValueError(f"the results have no column `{column}`")
    name = f"{unit or replication(table) or 'dense'}_seed"
    means = table.groupby([name, "ratio", "epoch"])[column].mean().unstack("epoch").sort_index(axis=1)
    ratios = sorted(table["ratio"].unique())
    seeds = sorted(table[name].unique())
    return [int(seed) for seed in seeds], np.stack([means.loc[seed].reindex(ratios).to_numpy(float) for seed in seeds])


def average(grids: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Mean over the units of the cells that are there, NaN where none is.

    (U, R, E) -> (R, E), or with counts (B, U) -> (B, R, E).
    counts: how often each unit is drawn in each of B resamples.
    """
    weights = np.ones((1, len(grids))) if counts is None else counts
    there = np.isfinite(grids)
    total = np.tensordot(weights, np.where(there, grids, 0.0), axes=1)  # (B, U) x (U, R, E) -> (B, R, E)
    number = np.tensordot(weights, there.astype(float), axes=1)
    with np.errstate(invalid="ignore"):  # 0/0 is the missing cell, NaN on purpose
        means = total / number
    return means[0] if counts is None else means


def finite(column: pd.Series, name: str) -> pd.Series:
    """The column as numbers; ValueError where one is NaN, infinite, or text that is no number."""
    numbers = pd.to_numeric(column, errors="coerce")
    bad = ~np.isfinite(numbers.to_numpy(float))
    if bad.any():
        raise ValueError(
            f"`{name}` is not a finite number in {int(bad.sum())} of {len(bad)} rows; drop or rerun these cells"
        )
    return numbers


def _outside(ratios: pd.Series) -> str:
    """The first ratio that is none; percent get a hint."""
    first = float(ratios[~ratios.between(0, 1, inclusive="left")].iloc[0])
    return f"{first:g}" + (" (percent? divide by 100)" if 1 < first <= 100 else "")


def _refuse_several_settings(results: pd.DataFrame) -> None:
    names = [name for name in ["setting", *setting_columns(results)] if name in results.columns]
    for name in names:
        values = results[name].unique()
        if len(values) > 1:
            raise ValueError(
                f"the results hold several settings ({name}: {', '.join(map(str, values[:4]))}...); "
                "pass them one at a time, as groups of results.groupby('setting')"
            )
