"""How the optimal epoch changes with the size of the model and the amount of data: a number on report figure 5.

The report reads off its curves that more data and smaller models make the best epoch to prune at come earlier.
`error_table` makes the input of `pruning_law.py` from the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from scipy.stats import t as student

from twore.analysis.grid import mean_grid, setting_columns
from twore.analysis.regimes import COVERAGE, optimal_epochs


def epoch_table(results: pd.DataFrame, *, select: str = "auto") -> pd.DataFrame:
    """The optimal epoch of every setting and ratio: setting, the setting columns, and `optimal_epochs`' columns."""
    return _by_setting(results, lambda rows: optimal_epochs(rows, select=select, resamples=0))


def epoch_scaling(
    results: pd.DataFrame, columns: Sequence[str] = ("depth", "data_percent"), *, select: str = "auto"
) -> pd.DataFrame:
    """Does the optimal epoch come later with a larger `column`? A row a ratio and column.

    results: rows of several settings of one study, or of studies put together. columns: numbers above 0; those that do
    not vary are passed over.

    Columns: ratio; column; settings; groups: families of settings equal in all else;
        tau: Kendall's tau-b of column and optimal epoch within these families, their mean; NaN where undefined
        slope: of ln epoch against ln column, in a fit with all of `columns` at once: -1 means half the epochs for twice
            the column; low, high: its 90 % interval from Student's t; NaN without degrees of freedom
        r2: of that fit, in [0, 1]
    Raises ValueError for a column that is missing or not positive, or an optimum at epoch 0.
    """
    table = epoch_table(results, select=select)
    for name in columns:
        if name not in table.columns:
            raise ValueError(f"no setting column `{name}`; there are {', '.join(setting_columns(results)) or 'none'}")
        table[name] = pd.to_numeric(table[name])
        if not (table[name] > 0).all():
            raise ValueError(f"`{name}` must be a number above 0 in every setting: its logarithm is fitted")
    if not (table["epoch"] > 0).all():
        raise ValueError("the optimum of some setting is epoch 0, which has no logarithm: leave epoch 0 out")
    varying = [name for name in columns if table[name].nunique() > 1]
    others = [name for name in setting_columns(results) if table[name].astype(str).nunique() > 1]
    rows = []
    for ratio, own in table.groupby("ratio"):
        slopes, lows, highs, r2 = _log_fit(own, varying)
        for k, name in enumerate(varying):
            fixed = [other for other in others if other != name]
            families = [f for _, f in own.groupby(fixed)] if fixed else [own]
            families = [family for family in families if family[name].nunique() > 1]
            taus = [_tau(family[name].to_numpy(float), family["epoch"].to_numpy(float)) for family in families]
            known = [tau for tau in taus if np.isfinite(tau)]
            rows.append({
                "ratio": ratio, "column": name, "settings": len(own), "groups": len(families),
                "tau": float(np.mean(known)) if known else np.nan, "slope": slopes[k], "low": lows[k],
                "high": highs[k], "r2": r2,
            })  # fmt: skip
    names = ["ratio", "column", "settings", "groups", "tau", "slope", "low", "high", "r2"]
    return pd.DataFrame(rows, columns=names)


def error_table(results: pd.DataFrame, *, ceiling: float = 100.0, epoch: str = "final") -> pd.DataFrame:
    """The error of every setting and ratio, for `fit_pruning_law`: setting, setting columns, ratio, density, error.

    error = ceiling - mean test score, in points. epoch: "final", the last checkpoint pruned; "best", the optimal one.
    """
    if epoch not in ("final", "best"):
        raise ValueError(f'epoch is "final" or "best": got {epoch!r}')

    def errors(rows: pd.DataFrame) -> pd.DataFrame:
        if epoch == "final":
            scores = mean_grid(rows).iloc[:, -1].dropna()
        else:
            scores = optimal_epochs(rows, resamples=0).set_index("ratio")["score"]
        ratios = scores.index.to_numpy(float)
        return pd.DataFrame({"ratio": ratios, "density": 1 - ratios, "error": ceiling - scores.to_numpy(float)})

    return _by_setting(results, errors)


def _by_setting(results: pd.DataFrame, measure: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """`measure` of each setting's rows, with the setting's label and columns before it."""
    columns = setting_columns(results)
    by = [name for name in ("setting", *columns) if name in results.columns]
    groups = results.groupby(by, sort=False, dropna=False) if by else [((), results)]
    parts = []
    for label, rows in groups:
        about = dict(zip(by, label))
        text = about.pop("setting", "") or " ".join(f"{name}={value}" for name, value in about.items())
        part = measure(rows)
        for at, (name, value) in enumerate({"setting": text, **about}.items()):
            part.insert(at, name, [value] * len(part))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _log_fit(table: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Slopes of ln epoch against the logarithms of the columns, fitted at once, (K,), 90 % ends (K,) (K,), and R^2."""
    missing = np.full(len(columns), np.nan)
    x = np.column_stack([np.ones(len(table)), *(np.log(table[name].to_numpy(float)) for name in columns)])  # (S, 1+K)
    y = np.log(table["epoch"].to_numpy(float))
    freedom = len(y) - x.shape[1]
    if freedom < 0 or np.linalg.matrix_rank(x) < x.shape[1]:
        return missing, missing, missing, np.nan  # a column does not vary at this ratio, or two vary together
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    squares = float(((y - x @ beta) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    if np.ptp(y) == 0:
        return np.zeros(len(columns)), missing, missing, np.nan  # the same epoch in every setting
    r2 = 1 - squares / total
    if freedom == 0:
        return beta[1:], missing, missing, r2
    error = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * squares / freedom)[1:]
    reach = student.ppf((1 + COVERAGE) / 2, freedom) * error
    return beta[1:], beta[1:] - reach, beta[1:] + reach, r2


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    return float(kendalltau(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else float("nan")
