"""Predictors of the stopping epoch that fine-tune nothing: the trivial rules, and the best value of a metric.

A predictor is a value: a name, what it needs, what it costs and a function from the tables of ONE setting to an epoch
for each ratio. Choices that need fine-tuned cells are in `pilots.py`.

Directions are fixed by what a metric means, before any grid is seen; exact ties go to the earliest epoch. With several
dense seeds a metric is averaged over them first.
Letters: R ratios, E epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from twore.analysis.grid import RATIO_TOLERANCE, match_ratios
from twore.analysis.predictors import Picks
from twore.analysis.regimes import EXACT, first_best
from twore.analysis.settings import SettingTables

NEEDS = ("nothing", "weights", "a few batches", "pilot", "grid")
DROP = 0.75  # a rate that falls below this part of the last one at once has dropped; our choice
LEVEL = 0.99  # and it was level on one side of the drop, so that smooth schedules have none; our choice
SIGNALS: dict[str, tuple[str, str]] = {  # column: (better end, needs); peers' metrics and their natural directions
    "random_distance": ("high", "weights"), "random_divergence": ("high", "weights"),
    "powerlaw_alpha": ("low", "weights"), "powerlaw_ks": ("low", "weights"), "alpha_weighted": ("low", "weights"),
    "etpl_lambda": ("low", "weights"), "etpl_ks": ("low", "weights"), "exp_lambda": ("low", "weights"),
    "stable_rank": ("low", "weights"), "mp_softrank": ("low", "weights"), "spectral_entropy": ("low", "weights"),
    "log_norm": ("high", "weights"), "log_spectral_norm": ("low", "weights"), "distance_from_init": ("high", "weights"),
    "distance_from_previous": ("low", "weights"), "mask_distance": ("low", "weights"),
    "prune_perturbation": ("low", "weights"),
    "hessian_top": ("low", "a few batches"), "hessian_trace": ("low", "a few batches"),
    "sharpness": ("low", "a few batches"), "pruned_score": ("high", "a few batches"),
    "pruned_loss": ("low", "a few batches"), "recalibrated_score": ("high", "a few batches"),
    "recalibrated_loss": ("low", "a few batches"),
    "average_recalibrated_score": ("high", "a few batches"), "average_recalibrated_loss": ("low", "a few batches"),
    "readout_score": ("high", "a few batches"), "readout_loss": ("low", "a few batches"),
    "pruned_readout_score": ("high", "a few batches"),
    "model_similarity": ("low", "grid"), "agreement": ("high", "grid"), "cka": ("high", "grid"),
    "lmc": ("high", "grid"), "loss_lmc": ("high", "grid"), "score_lmc": ("high", "grid"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predictor:
    """A way to choose the epoch to prune at.

    name     for tables and figures
    needs    one of NEEDS; "pilot": fine-tuned cells of one fine-tune seed, "grid": the whole grid
    pick     tables of one setting -> {ratio: epoch}, None where it does not apply. A "pilot" is handed the results of
             one fine-tune seed, whose `score` is the score choices are made on; a "grid" all of them; any other
             results without scores
    cost     share of the grid's fine-tuning epochs that it spends, in [0, 1]; or a function of the tables that says so.
             Dense training is not counted: every rule here needs it
    signal   what is maximised, (R, E), index ratio, columns epoch, higher is better; None for a rule without one
    trivial  a rule of thumb that any other has to beat
    """

    name: str
    needs: str
    pick: Callable[[SettingTables], Picks | None]
    cost: float | Callable[[SettingTables], float] = 0.0
    signal: Callable[[SettingTables], pd.DataFrame | None] | None = None
    trivial: bool = False

    def __post_init__(self) -> None:
        if self.needs not in NEEDS:
            raise ValueError(f"a predictor needs one of {', '.join(NEEDS)}: got {self.needs!r} for {self.name!r}")

    def cost_of(self, setting: SettingTables) -> float:
        """Share of the setting's fine-tuning epochs."""
        return float(self.cost(setting) if callable(self.cost) else self.cost)


def trivial_rules() -> list[Predictor]:
    """The rules of thumb, always on the board: final, best dense validation score, last before the first rate drop,
    25 % and 50 % of the budget, random."""
    return [
        Predictor("final checkpoint", "nothing", _final, trivial=True),
        Predictor("best dense validation score", "a few batches", _best_dense, trivial=True),
        Predictor("last before the first rate drop", "nothing", _before_drop, trivial=True),
        budget_rule(0.25),
        budget_rule(0.5),
        Predictor("random epoch", "nothing", _random, trivial=True),
    ]


def budget_rule(share: float) -> Predictor:
    """The checkpoint nearest to this share of the last epoch, the earlier of two equally near."""
    if not 0 < share <= 1:
        raise ValueError(f"share is a part of the budget, above 0 and at most 1: got {share}")
    return Predictor(f"{100 * share:g} % of the budget", "nothing", lambda s: _same(s, nearest(s, share)), trivial=True)


def signal_rule(
    column: str,
    *,
    better: str,
    table: str = "checkpoints",
    name: str | None = None,
    needs: str = "weights",
    cost: float | Callable[[SettingTables], float] = 0.0,
    window: int = 1,
) -> Predictor:
    """The checkpoint where a metric is best: argmax or argmin of a column.

    better: "high" or "low". table: "checkpoints" (one value an epoch), "probes" or "pairs" (one an epoch and ratio).
    window: an odd number of checkpoints to average over first, fewer at the ends. cost: as `Predictor.cost`.
    It does not apply where the column is missing, or has no value for some ratio.
    """
    if better not in ("high", "low"):
        raise ValueError(f'better is "high" or "low": got {better!r} for {column!r}')
    if table not in ("checkpoints", "probes", "pairs"):
        raise ValueError(f'table is "checkpoints", "probes" or "pairs": got {table!r} for {column!r}')
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window is an odd number of checkpoints: got {window}")

    def signal(setting: SettingTables) -> pd.DataFrame | None:
        grid = metric_grid(setting, column, table=table)
        return None if grid is None else _smooth(grid if better == "high" else -grid, window)

    label = name or f"{'largest' if better == 'high' else 'smallest'} {column}"
    return Predictor(label, needs, lambda s: best_epochs(signal(s)), cost, signal)


def signal_rules(
    settings: Sequence[SettingTables], signals: Mapping[str, tuple[str, str]] | None = None
) -> list[Predictor]:
    """A rule for each of `signals` (column -> (better, needs); default SIGNALS) that some setting has a column for.

    A column in two tables gives two rules, told apart by the table's name. Rules that need the grid cost 1.
    """
    rules = []
    for column, (better, needs) in (SIGNALS if signals is None else signals).items():
        tables = [t for t in ("checkpoints", "probes", "pairs") if any(_has(getattr(s, t), column) for s in settings)]
        for table in tables:
            needed = "grid" if table == "pairs" else needs
            end = "largest" if better == "high" else "smallest"
            name = f"{end} {column}" + (f" ({table})" if len(tables) > 1 else "")
            probed = readout_cost if "readout" in column else probe_cost
            cost = 1.0 if needed == "grid" else probed if (table, needed) == ("probes", NEEDS[2]) else 0.0
            rules.append(signal_rule(column, better=better, table=table, name=name, needs=needed, cost=cost))
    return rules


def probe_cost(setting: SettingTables) -> float:
    """Share of the grid's fine-tuning that its probes cost, by their column `cost`; 0 where that is not recorded."""
    return probes_share(setting, "cost")


def readout_cost(setting: SettingTables) -> float:
    """The same of its read-outs, by their column `readout_cost`."""
    return probes_share(setting, "readout_cost")


def probes_share(setting: SettingTables, column: str) -> float:
    """Sum of a column of costs, each a share of fine-tuning one cell, over the setting's cells; 0 without it."""
    if setting.probes is None or column not in setting.probes.columns:
        return 0.0
    return float(setting.probes[column].sum()) / len(setting.results)


def switched(rule: Predictor, column: str, *, threshold: float, table: str = "probes") -> Predictor:
    """The final checkpoint where its `column` reaches `threshold`, else `rule`: regime first, epoch second.

    column: a signal whose high values mean light pruning, such as the recalibrated score of the pruned final model.
    The threshold is a tuned number: put it on the board by `leave_one_out` only.
    """

    def pick(setting: SettingTables) -> Picks | None:
        grid = metric_grid(setting, column, table=table)
        heavy = rule.pick(setting)
        if grid is None or heavy is None or grid.iloc[:, -1].isna().any():
            return None
        light = {float(r) for r, value in zip(grid.index, grid.iloc[:, -1]) if value >= threshold}
        return {ratio: float(grid.columns[-1]) if ratio in light else heavy[ratio] for ratio in heavy}

    return Predictor(f"{rule.name}, final where {column} >= {threshold:g}", rule.needs, pick, rule.cost)


def metric_grid(setting: SettingTables, column: str, *, table: str) -> pd.DataFrame | None:
    """A column of a table on the setting's ratios and epochs, (R, E), mean over dense seeds; NaN where it has no value.

    A value an epoch stands in every row. Rows `pair == "mean"` of a pairs table are used alone where there are any.
    None where the table or the column is missing, or some ratio has no value at all.
    """
    frame = getattr(setting, table)
    if not _has(frame, column):
        return None
    if "pair" in frame.columns and (frame["pair"] == "mean").any():
        frame = frame[frame["pair"] == "mean"]
    ratios, epochs = axes(setting)
    frame = frame.assign(_seed=frame["dense_seed"] if "dense_seed" in frame.columns else 0)
    by = ["epoch"]
    if table != "checkpoints":
        at = np.abs(frame["ratio"].to_numpy(float)[:, None] - ratios)  # (N, R)
        frame = frame.assign(_ratio=ratios[at.argmin(axis=1)])[at.min(axis=1) <= RATIO_TOLERANCE]
        by = ["_ratio", "epoch"]
    means = frame.dropna(subset=[column]).groupby([*by, "_seed"])[column].mean().groupby(by).mean()
    if table == "checkpoints":
        row = means.reindex(epochs).to_numpy(float)
        values = np.tile(row, (len(ratios), 1))
    else:
        values = means.unstack("epoch").reindex(index=ratios, columns=epochs).to_numpy(float)
    if not np.isfinite(values).any(axis=1).all():
        return None
    return pd.DataFrame(values, index=pd.Index(ratios, name="ratio"), columns=pd.Index(epochs, name="epoch"))


def best_epochs(signal: pd.DataFrame | None) -> Picks | None:
    """The epoch of the largest value of each row, the earliest of exact ties; None for no signal."""
    if signal is None:
        return None
    values = signal.to_numpy(float)
    at = np.argmax(np.where(np.isfinite(values), values, -np.inf), axis=1)
    return {float(r): float(signal.columns[i]) for r, i in zip(signal.index, at)}


def axes(setting: SettingTables) -> tuple[np.ndarray, np.ndarray]:
    """The setting's ratios (R,) and pruned epochs (E,), ascending."""
    ratios = np.unique(match_ratios(setting.results["ratio"].to_numpy(float)))
    return ratios, np.unique(setting.results["epoch"].to_numpy(float))


def nearest(setting: SettingTables, share: float) -> float:
    """The pruned epoch nearest to a share of the last one, the earlier of two equally near."""
    _, epochs = axes(setting)
    return float(epochs[np.argmin(np.round(np.abs(epochs - share * epochs[-1]), 9))])


def rate_drop(setting: SettingTables) -> float | None:
    """The last epoch before the learning rate's first drop; None for a smooth schedule, or an unknown one.

    Read from the dense curve, else from the checkpoints. A drop is a fall by more than a quarter from a level, or to
    one: the first epochs of an inverse square root fall as fast, but are level on neither side.
    """
    for table in (setting.curves, setting.checkpoints):
        if not _has(table, "lr"):
            continue
        rate = table.groupby("epoch")["lr"].mean().dropna()  # type: ignore[union-attr]
        rate = rate[(rate > 0) & (rate.index > 0)]  # the initialisation has no rate
        step = (rate / rate.shift(1)).to_numpy(float)  # (N,): step[i] leads from row i-1 to row i
        level = np.abs(step - 1) < 1 - LEVEL
        for i in range(1, len(step)):
            if step[i] < DROP and (level[i - 1] or (i + 1 < len(step) and level[i + 1])):
                return float(rate.index[i - 1])
        if len(rate):
            return None
    return None


def _final(setting: SettingTables) -> Picks:
    return _same(setting, axes(setting)[1][-1])


def _random(setting: SettingTables) -> Picks:
    ratios, epochs = axes(setting)
    return {float(ratio): tuple(epochs) for ratio in ratios}


def _best_dense(setting: SettingTables) -> Picks | None:
    grid = metric_grid(setting, "valid_score", table="checkpoints")
    if grid is None:
        return None
    return _same(setting, float(grid.columns[int(first_best(grid.to_numpy(float)[0]))]))


def _before_drop(setting: SettingTables) -> Picks | None:
    drop = rate_drop(setting)
    _, epochs = axes(setting)
    before = epochs[epochs <= (-np.inf if drop is None else drop + EXACT)]
    return _same(setting, before[-1]) if len(before) else None


def _same(setting: SettingTables, epoch: float) -> Picks:
    return {float(ratio): float(epoch) for ratio in axes(setting)[0]}


def _smooth(grid: pd.DataFrame, window: int) -> pd.DataFrame:
    """Mean over `window` neighbouring epochs, what there is of them; missing values stay missing."""
    if window == 1:
        return grid
    return grid.T.rolling(window, center=True, min_periods=1).mean().T.where(grid.notna())


def _has(table: pd.DataFrame | None, column: str) -> bool:
    return table is not None and column in table.columns and bool(table[column].notna().any())
