"""The line plots: optimal epoch against the setting, random_distance against the score, the training curve. Figures 5,
7, 10.

A line is a mean over the units of replication (dense seeds where there are two or more, else fine-tune seeds) and
carries their spread; what the spread is stands in each function.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from twore.analysis import mean_grid, optimal_epochs
from twore.analysis.grid import average, replication, unit_grids
from twore.report.diagrams import EPOCH_AXIS
from twore.report.style import BLUE, GREEN, GREY, LINES, VERMILLION, styled
from twore.report.tables import ScalingRow, text_of

# A learning rate that falls below this part of the last one within an epoch has dropped. Our choice: an inverse square
# root falls most from the first epoch to the second, to 2**-0.5 = 0.707.
DROP = 0.7
LEGEND_WIDTH = 7.5  # inches that figure 7's title and legend take up; seen


@styled
def optimal_epoch_lines(results: pd.DataFrame, rows: list[ScalingRow], ratios: list[float]) -> Figure:
    """Figure 5: the optimal epoch of the heavy ratios against each swept quantity; a panel a quantity, a line a ratio.

    The line is the optimum of the mean over all seeds; the bar is the range of the optima of the single seeds.
    """
    figure = Figure(figsize=(0.8 + 4.2 * len(rows), 3.9), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False, sharey=True)[0]
    for ax, row in zip(axes, rows):
        for k, ratio in enumerate(ratios):
            optima = [optimum_and_range(results[results["setting"] == s], ratio) for s in row.settings]
            x = np.arange(len(optima)) + 0.09 * (
                k - (len(ratios) - 1) / 2
            )  # side by side, so that bars do not hide each other
            best, low, high = np.array(optima, float).T
            colour, dash, marker = LINES[k % len(LINES)]
            ax.errorbar(x, best, yerr=[best - low, high - best], color=colour, ls=dash, marker=marker, ms=6, lw=1.7,
                        capsize=3, elinewidth=1.0, mec="white", mew=0.6, label=f"ratio {ratio:.6g}")  # fmt: skip
        ax.set_xticks(range(len(row.values)), [text_of(value) for value in row.values])
        ax.set_xlabel(row.label)
        ax.set_xlim(-0.45, len(row.values) - 0.55)
        ax.set_ylim(0, results["epoch"].max() * 1.05)
        ax.grid(True, axis="y")
    axes[0].set_ylabel("optimal epoch to prune at")
    figure.suptitle("Optimal epoch at heavy ratios", fontsize=11, fontweight="bold")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


@styled
def random_distance_lines(
    results: pd.DataFrame, checkpoints: pd.DataFrame, ratios: list[float], *, score_label: str = "score"
) -> Figure:
    """Figure 7: random_distance of the dense checkpoints against the score after pruning; a panel a ratio, of one
    setting.

    Bars: s.d. of the score over seeds. Band: standard error of random_distance over its permutations. Stars: the peaks
    among the checkpoints that were pruned. Epochs before the first pruned one are left out: they would set the scale.
    """
    columns = min(3, len(ratios))
    lines = -(-len(ratios) // columns)
    width = max(0.9 + 3.3 * columns, LEGEND_WIDTH)
    figure = Figure(figsize=(width, 1.0 + 2.5 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True)
    scores, spread = mean_and_spread(results)
    epochs = epochs_of(scores)
    distance = distance_curve(checkpoints)
    distance = distance[distance.index >= epochs[0]]
    x, value, error = (c.to_numpy(float) for c in (distance.index, distance["value"], distance["stderr"]))
    peak = distance_peak(checkpoints, epochs)
    best = optimal_epochs(results)
    for i, ax in enumerate(axes.flat):
        if i >= len(ratios):
            ax.set_axis_off()
            continue
        ratio = ratios[i]
        row = int(np.argmin(np.abs(best["ratio"].to_numpy() - ratio)))
        optimum = float(best["epoch"].iloc[row])
        ax.errorbar(epochs, scores.iloc[row], yerr=spread.iloc[row].fillna(0.0), color=BLUE, marker="o", ms=4, lw=1.6,
                    capsize=2, elinewidth=0.8)  # fmt: skip
        right = ax.twinx()
        right.plot(x, value, color=VERMILLION, ls="--", marker="s", ms=3.5, lw=1.6)
        right.fill_between(x, value - error, value + error, color=VERMILLION, alpha=0.2, lw=0)
        ax.axvline(optimum, color=BLUE, lw=1.0, ls="-", alpha=0.6, zorder=0)
        right.axvline(peak, color=VERMILLION, lw=1.0, ls="--", alpha=0.7, zorder=0)
        ax.plot(optimum, value_at(scores, ratio, optimum), "*", ms=14, color=BLUE, mec="white", mew=0.8, zorder=6)
        right.plot(peak, value[x == peak], "*", ms=14, color=VERMILLION, mec="white", mew=0.8, zorder=6)
        ax.margins(y=0.15)
        right.margins(y=0.15)
        right.spines["right"].set_visible(True)
        right.tick_params(axis="y", colors=VERMILLION, length=2)
        ax.tick_params(axis="y", colors=BLUE)
        ax.set_title(f"ratio {ratio:.6g}: best at {optimum:g}, peak at {peak:g}", fontsize=9.5, fontweight="normal")
        if i % columns == 0:
            ax.set_ylabel(score_label, color=BLUE)
        if i % columns == columns - 1 or i == len(ratios) - 1:
            right.set_ylabel("random_distance (√nat)", color=VERMILLION)
        if i + columns >= len(ratios):
            ax.set_xlabel(EPOCH_AXIS)
            ax.tick_params(axis="x", labelbottom=True)
            ax.xaxis.set_major_locator(whole_epochs())
    handles = [
        Line2D([], [], color=BLUE, marker="o", ms=4, label="score after pruning and fine-tuning"),
        Line2D([], [], color=VERMILLION, ls="--", marker="s", ms=4, label="random_distance of the dense model"),
        Line2D([], [], color=GREY, ls="none", marker="*", ms=12, label="peaks"),
    ]
    figure.suptitle("random_distance of the dense model and the score after pruning", fontsize=11, fontweight="bold")
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def training_curve(curves: pd.DataFrame, *, score_label: str = "score") -> Figure:
    """Figure 10: training loss, score and learning rate of the dense runs of one setting; mean and range over seeds."""
    figure = Figure(figsize=(7.4, 6.0), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.4])
    quantities = (
        ("train_loss", "training loss (nats)", GREEN),
        ("score", score_label, BLUE),
        ("lr", "learning rate", GREY),
    )
    drops = rate_drops(curves)
    for ax, (column, label, colour) in zip(axes, quantities):
        by_epoch = curves.groupby("epoch")[column].agg(["mean", "min", "max"]).dropna()
        if column == "lr":
            ax.step(by_epoch.index, by_epoch["mean"], where="pre", color=colour, lw=1.6)
            ax.set_yscale("log")
        else:
            few = len(by_epoch) <= 60
            ax.plot(by_epoch.index, by_epoch["mean"], color=colour, lw=1.7, marker="o" if few else None, ms=3)
            ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.18, lw=0)
        for drop in drops:
            ax.axvline(drop, color=VERMILLION, ls=":", lw=1.2)
        ax.set_ylabel(label)
        ax.grid(True, axis="y")
    for drop in drops:
        axes[0].annotate(f"rate drops after {drop:g}", (drop, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -3),
                         textcoords="offset points", fontsize=8, color=VERMILLION, va="top", rotation=90)  # fmt: skip
    axes[0].set_title("Training curve of the dense model")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(whole_epochs())
    figure.align_ylabels(axes)
    return figure


def whole_epochs() -> MaxNLocator:
    """Ticks at whole epochs: 0, 5, 10, never 2.5."""
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10])


def optimum_and_range(results: pd.DataFrame, ratio: float) -> tuple[float, float, float]:
    """Optimal epoch of the mean, and the lowest and highest of the single seeds, for one ratio of one setting."""
    rows = results[np.isclose(results["ratio"], ratio, rtol=0, atol=1e-9)]
    if rows.empty:
        return (np.nan, np.nan, np.nan)
    best = float(optimal_epochs(rows).iloc[0]["epoch"])
    unit = replication(rows)
    if unit is None:
        return best, best, best
    single = [float(optimal_epochs(one).iloc[0]["epoch"]) for _, one in rows.groupby(f"{unit}_seed")]
    return best, min(*single, best), max(*single, best)


def mean_and_spread(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean score (R, E) and its s.d. over the units of replication (R, E), ddof 1; NaN s.d. where fewer than two."""
    grid = mean_grid(results)
    _, grids = unit_grids(results)
    number = np.isfinite(grids).sum(axis=0)
    squares = average((grids - average(grids)) ** 2) * number
    spread = np.sqrt(squares / np.where(number > 1, number - 1, np.nan))
    return grid, pd.DataFrame(spread, index=grid.index, columns=grid.columns)


def distance_curve(checkpoints: pd.DataFrame) -> pd.DataFrame:
    """random_distance by epoch: value, the mean over dense seeds, and stderr, its error from the permutations."""
    rows = checkpoints.dropna(subset=["random_distance"])
    groups = rows.assign(square=rows["random_distance_stderr"] ** 2).groupby("epoch")
    stderr = np.sqrt(groups["square"].sum(min_count=1)) / groups.size()
    return pd.DataFrame({"value": groups["random_distance"].mean(), "stderr": stderr.fillna(0.0)})


def distance_peak(checkpoints: pd.DataFrame, epochs: list[float]) -> float:
    """The epoch, among those that were pruned, where random_distance is largest; the earliest of equals."""
    curve = distance_curve(checkpoints)["value"]
    curve = curve[curve.index.isin(epochs)]
    return float(curve.index.to_numpy(float)[int(np.argmax(curve.to_numpy(float)))])


def epochs_of(grid: pd.DataFrame) -> list[float]:
    """The epochs of a grid, ascending."""
    return [float(epoch) for epoch in grid.columns.to_numpy(float)]


def value_at(grid: pd.DataFrame, ratio: float, epoch: float) -> float:
    """The cell of a grid nearest to this ratio and epoch."""
    row = int(np.argmin(np.abs(grid.index.to_numpy(float) - ratio)))
    return float(grid.to_numpy(float)[row, int(np.argmin(np.abs(grid.columns.to_numpy(float) - epoch)))])


def rate_drops(curves: pd.DataFrame) -> list[float]:
    """Epochs after which the learning rate falls to less than `DROP` of it at once; none for a smooth schedule."""
    rate = curves.groupby("epoch")["lr"].mean().dropna()
    rate = rate[rate > 0]
    fell = (rate / rate.shift(1) < DROP).to_numpy()
    before = pd.Series(rate.index, index=rate.index).shift(1)
    drops = [float(epoch) for epoch in before[fell]]
    return drops if len(drops) <= 6 else []  # a rate that falls all the time has no drops
