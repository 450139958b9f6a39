"""The error after pruning against density, model size and amount of data: one law for a family of networks.

The rational form of Rosenfeld et al., "On the predictability of pruning across scales" (ICML 2021): with density d, the
dense model's error e, the error h of a network pruned to nothing, slope gamma and the density p' where the power law
ends,

    error = e * |(m - i p' (h/e)^(1/gamma)) / (m - i p')|^gamma,    m = d * depth^phi * ...

a low plateau e, a power law of slope -gamma, a high plateau h; the invariant m makes networks of different size and
density interchangeable. They tie depth and width; an exponent for data is our addition (there e alone depends on data).
Letters: N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

STARTS = ((0.5, 1.0, 2.0, 4.0), (0.01, 0.05, 0.2))  # gamma and p of the starting points of a fit; our choice
GAMMA, P, EXPONENT = (0.05, 20.0), (1e-6, 10.0), (-5.0, 5.0)  # bounds of the fit; our choice, wider than any published


@dataclass(frozen=True, eq=False)
class PruningLaw:
    """A fitted rational form, and how well it holds.

    gamma: slope of the power law in ln error against ln density · p: the density where it ends, at the reference sizes
    high: the error of a network pruned to nothing, in the unit of the errors · exponents: of each size in the invariant
    reference: the size of each scale column at which its factor is 1 (the geometric mean of the settings)
    residual: mean |fitted / measured - 1| · loo: the same for settings left out of the fit (densities, with fewer than
        three settings); NaN when too few points are left
    at_bounds: parameters the data do not fix: their fit stopped at a bound (no plateau seen, say)
    points, settings: how many · dense_error: by setting, measured or fitted · measured_dense: which of the two
    """

    gamma: float
    p: float
    high: float
    exponents: dict[str, float]
    reference: dict[str, float]
    residual: float
    loo: float
    at_bounds: tuple[str, ...]
    points: int
    settings: int
    dense_error: pd.Series
    measured_dense: bool

    def predict(self, table: pd.DataFrame, dense_error: np.ndarray | None = None) -> np.ndarray:
        """The error at each row of a table with `density` and the scale columns, (N,).

        dense_error: (N,); default that of the row's `setting`.
        """
        dense = self.dense_error.loc[table["setting"]].to_numpy(float) if dense_error is None else dense_error
        size = np.log(table["density"].to_numpy(float))
        for name, exponent in self.exponents.items():
            size = size + exponent * np.log(table[name].to_numpy(float) / self.reference[name])
        return rational_form(np.exp(size), dense, high=self.high, gamma=self.gamma, p=self.p)


def fit_pruning_law(table: pd.DataFrame, *, scale: Sequence[str] = (), highest: float = 100.0) -> PruningLaw:
    """Fit the rational form to errors against density (and size), by least squares on ln error.

    table: columns setting, density, error, those of `scale`, and perhaps `dense_error` (equal within a setting), as
        `error_table` gives; without dense_error it is fitted, one for each setting.
    scale: size columns that enter the invariant, e.g. ("depth",); those that do not vary are passed over.
    highest: bound of the high plateau in the unit of the errors, the error of guessing at most.

    Raises ValueError for missing columns, numbers that are not positive, or fewer points than parameters.
    """
    known = "dense_error" in table.columns
    for name in ("setting", "density", "error", *scale, *(["dense_error"] if known else [])):
        if name not in table.columns:
            raise ValueError(f"the table needs a column `{name}`; it has {[str(c) for c in table.columns]}")
        if name != "setting" and not (pd.to_numeric(table[name]) > 0).all():
            raise ValueError(f"`{name}` must be above 0 in every row: its logarithm is fitted")
    if table["error"].max() > highest:
        raise ValueError(f"an error of {table['error'].max():g} is above highest={highest:g}: raise it")
    scale = [name for name in scale if table[name].nunique() > 1]
    labels = list(dict.fromkeys(table["setting"]))
    parameters = 3 + len(scale) + (0 if known else len(labels))
    if len(table) < parameters:
        raise ValueError(f"{len(table)} points cannot fix {parameters} parameters: add ratios, or a dense_error column")
    reference = {name: float(np.exp(np.log(table.drop_duplicates("setting")[name]).mean())) for name in scale}
    table = table.reset_index(drop=True)
    x = _fit(table, reference, highest, starts=list(product(*STARTS)))
    law = _law(x, table, reference, highest)
    by = "setting" if len(labels) >= 3 and known else "density"
    return replace(law, loo=_left_out_error(law, x, table, by=by, highest=highest))


def rational_form(m: np.ndarray, dense_error: np.ndarray | float, *, high: float, gamma: float, p: float) -> np.ndarray:
    """The error at the invariant m (density at the reference size), in the unit of dense_error and high. (N,) -> (N,)

    dense_error for m far above p, `high` for m = 0; between them a power law of slope -gamma.
    """
    ratio = (high / np.asarray(dense_error, float)) ** (2 / gamma)
    return dense_error * ((m**2 + p**2 * ratio) / (m**2 + p**2)) ** (gamma / 2)


def _fit(table: pd.DataFrame, reference: dict[str, float], highest: float, *, starts: list[tuple[float, float]],
         first: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
    """Parameters: ln gamma, ln p, ln high, exponents, and ln dense errors unless these are known."""
    error = table["error"].to_numpy(float)
    size = np.log(table["density"].to_numpy(float))
    logs = np.array([np.log(table[name].to_numpy(float) / at) for name, at in reference.items()]).reshape(
        -1, len(table)
    )
    known = "dense_error" in table.columns
    labels = list(dict.fromkeys(table["setting"]))
    which = table["setting"].map({label: i for i, label in enumerate(labels)}).to_numpy(int)

    def residuals(x: np.ndarray) -> np.ndarray:
        gamma, p, high = np.exp(x[:3])
        m = np.exp(size + x[3 : 3 + len(logs)] @ logs)
        dense = table["dense_error"].to_numpy(float) if known else np.exp(x[3 + len(logs) :])[which]
        return np.log(rational_form(m, dense, high=high, gamma=gamma, p=p)) - np.log(error)

    bounds = _bounds(table, list(reference), highest)
    guesses = [] if first is None else [first]
    for gamma, p in starts:
        guess = [np.log(gamma), np.log(p), bounds[:, 2].mean(), *[0.0] * len(logs)]
        guesses.append(np.array([*guess, *([] if known else np.log(_lowest(table)))]))
    fits = [least_squares(residuals, np.clip(x, *bounds), bounds=tuple(bounds), max_nfev=400) for x in guesses]
    return min(fits, key=lambda fit: fit.cost).x


def _bounds(table: pd.DataFrame, scale: list[str], highest: float) -> np.ndarray:
    """Lower and upper bounds of the parameters, (2, parameters)."""
    known = "dense_error" in table.columns
    floor = float(table[["error", "dense_error"] if known else ["error"]].max().max())
    sides = [np.log(GAMMA), np.log(P), np.log([floor, max(highest, floor * 1.001)]), *[EXPONENT] * len(scale)]
    if not known:
        sides += [(low - 3, low + 0.2) for low in np.log(_lowest(table))]
    return np.array(sides, float).T


def _lowest(table: pd.DataFrame) -> np.ndarray:
    """The smallest error of each setting, where a dense error is looked for. (S,)"""
    return table.groupby("setting", sort=False)["error"].min().to_numpy(float)


def _law(x: np.ndarray, table: pd.DataFrame, reference: dict[str, float], highest: float) -> PruningLaw:
    """The law of these parameters, with its residual on the table; `loo` is not known yet."""
    known = "dense_error" in table.columns
    labels = pd.Index(dict.fromkeys(table["setting"]), name="setting")
    gamma, p, high = np.exp(x[:3])
    if known:
        dense = table.groupby("setting")["dense_error"].first().reindex(labels)
    else:
        dense = pd.Series(np.exp(x[3 + len(reference) :]), index=labels, name="dense_error")
    low, up = _bounds(table, list(reference), highest)
    stopped = (x - low < 1e-3) | (up - x < 1e-3)  # of a logarithm: within 0.1 % of a bound
    names = ["gamma", "p", "high", *reference, *([] if known else [f"dense_error of {label}" for label in labels])]
    law = PruningLaw(
        gamma=float(gamma), p=float(p), high=float(high), exponents=dict(zip(reference, x[3:].tolist())),
        reference=reference, residual=np.nan, loo=np.nan,
        at_bounds=tuple(name for name, stop in zip(names, stopped) if stop), points=len(table), settings=len(labels),
        dense_error=dense, measured_dense=known,
    )  # fmt: skip
    return replace(law, residual=float(np.mean(_misses(law, table))))


def _left_out_error(law: PruningLaw, x: np.ndarray, table: pd.DataFrame, *, by: str, highest: float) -> float:
    """The mean relative error on what is left out, one value of `by` at a time; each fit starts from the full one."""
    misses: list[float] = []
    for _, out in table.groupby(by):
        rest = table.drop(out.index)
        if len(rest) < len(x) or any(rest[name].nunique() < 2 for name in law.exponents):
            continue
        if by != "setting" and rest["setting"].nunique() < law.settings:
            continue
        own = _law(_fit(rest, law.reference, highest, starts=[], first=x), rest, law.reference, highest)
        if by == "setting":  # its dense error is measured, so a setting the fit has not seen can be predicted
            own = replace(own, dense_error=law.dense_error)
        misses += _misses(own, out).tolist()
    return float(np.mean(misses)) if misses else float("nan")


def _misses(law: PruningLaw, table: pd.DataFrame) -> np.ndarray:
    return np.abs(law.predict(table) / table["error"].to_numpy(float) - 1)
