"""The 2-D diagrams: prune ratio (up) against training epochs (right), a cell an experiment.

Report figures 2, 3, 4, 6, 8, 9. Each cell is a mean over fine-tune seeds and dense seeds (`twore.analysis.mean_grid`).
"Normalised" means minus the best of the row: 0 at the best epoch of that ratio, negative elsewhere, in points. Both
axes are categorical, since neither ratios nor epochs need be evenly spaced. Letters: R ratios, E epochs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from twore.analysis import mean_grid, optimal_epochs, regime_boundary
from twore.report.style import GREY, SCORE_MAP, SIMILARITY_MAP, STAR, styled
from twore.report.tables import ScalingRow, text_of
from twore.report.unit import POINTS, Unit

EPOCH_AXIS = "training epochs before pruning"
RATIO_AXIS = "prune ratio\n(fraction of weights removed)"
WIDE = 8  # epochs: two wider diagrams side by side would not be legible on a page
MOST_PRINTED = (20, 14)  # epochs, ratios: a larger grid has no room for its numbers
NOT_RUN: dict[str, Any] = {"facecolor": "#f1f2f4", "edgecolor": "#b3b9c1"}
LEGEND_ENTRY = 2.5  # inches: the widest entry of a legend, so that none is cut off
LOSS = 0.5  # points; a later cell this far below the best is hatched: the `min_gain` of regime_boundary


@styled
def accuracy_diagram(
    results: pd.DataFrame, *, unit: Unit = POINTS, title: str = "Score of the pruned model", optima: bool = False
) -> Figure:
    """Figures 2 and 8: the score of every cell as it is, of one setting; `optima` adds the best epoch of each ratio."""
    grid = mean_grid(results)
    figure, (ax,) = _canvas(grid)
    norm = Normalize(float(np.nanquantile(grid, 0.02)), float(np.nanmax(grid)))
    _draw_scores(ax, grid, norm, unit, label=unit.label, pad=0.02, lower=optima)
    ax.set_title(title)
    if optima:
        mark_optima(ax, results, grid)
    _label(ax)
    _legend(figure, [grid], optima=optima, hatched=False)
    return figure


@styled
def normalised_diagram(
    results: pd.DataFrame, *, unit: Unit = POINTS, title: str = "Score below the best of each ratio"
) -> Figure:
    """Figure 3: each row minus its best, with the best epoch and ties of each ratio, and the line between regimes."""
    grid = normalised(results)
    figure, (ax,) = _canvas(grid)
    _draw_scores(ax, grid, _normalised_scale([grid]), unit, label=unit.distance, pad=0.05)
    hatch_late_loss(ax, results, grid)
    mark_optima(ax, results, grid)
    mark_boundary(ax, results, grid)
    ax.set_title(title)
    _label(ax)
    _legend(figure, [grid], optima=True, hatched=True, unit=unit)
    return figure


@styled
def scaling_diagrams(
    results: pd.DataFrame, rows: list[ScalingRow], *, as_is: bool = False, score_label: str = "score"
) -> Figure:
    """Figures 4 (normalised) and 9 (`as_is`): a row a swept quantity, a panel a setting, one colour scale for all."""
    panels = {s: results[results["setting"] == s] for row in rows for s in row.settings}
    grids = {s: mean_grid(panel) if as_is else normalised(panel) for s, panel in panels.items()}
    values = np.concatenate([grid.to_numpy().ravel() for grid in grids.values()])
    norm = Normalize(float(np.nanquantile(values, 0.02)), float(np.nanmax(values)))
    norm = norm if as_is else _normalised_scale(list(grids.values()))
    columns = max(len(row.settings) for row in rows)
    height = max(2.6, 0.9 + 0.24 * max(len(grid) for grid in grids.values()))
    layout = ConstrainedLayoutEngine(hspace=0.05)  # titles clear of the ticks above them
    figure = Figure(figsize=(1.6 + 2.6 * columns, 0.9 + height * len(rows)), layout=layout)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for i, row in enumerate(rows):
        for j in range(columns):
            ax = axes[i, j]
            if j >= len(row.settings):
                ax.set_axis_off()
                continue
            grid = grids[row.settings[j]]
            draw_grid(ax, grid, norm=norm, cmap=SCORE_MAP, print_values=False)
            if not as_is:
                hatch_late_loss(ax, panels[row.settings[j]], grid)
            mark_optima(ax, panels[row.settings[j]], grid, centred=True)
            ax.set_title(f"{row.short}: {text_of(row.values[j])}", fontsize=9.5)
            ax.set_xlabel(EPOCH_AXIS if i == len(rows) - 1 else "")
            ax.set_ylabel("prune ratio" if j == 0 else "")
    label = score_label if as_is else _below(score_label)
    figure.colorbar(
        ScalarMappable(norm, SCORE_MAP), ax=axes, label=label, extend=_extend(values, norm), pad=0.015, aspect=35
    )
    _legend(figure, list(grids.values()), optima=True, hatched=not as_is)
    return figure


@styled
def similarity_diagram(results: pd.DataFrame, pairs: pd.DataFrame, *, score_label: str = "score") -> Figure:
    """Figure 6: normalised score and model_similarity (nats, mean over pairs of seeds) on the same axes.

    Side by side, or one above the other when the grid is wide.
    """
    left = normalised(results)
    right = similarity_grid(pairs).reindex(columns=left.columns).reindex(left.index, method="nearest", tolerance=1e-8)
    wide = left.shape[1] > WIDE
    figure, (ax, beside) = _canvas(left, panels=2, stacked=wide)
    norm = _normalised_scale([left])
    draw_grid(ax, left, norm=norm, cmap=SCORE_MAP)
    hatch_late_loss(ax, results, left)
    mark_optima(ax, results, left)
    ax.set_title("Score below the best of each ratio")
    figure.colorbar(
        ScalarMappable(norm, SCORE_MAP), ax=ax, label=_below(score_label), extend=_extend(left, norm), pad=0.05
    )
    top = float(np.nanmax(right)) or 1.0  # all pairs equal: any positive scale does
    scale = Normalize(0.0, top)
    draw_grid(beside, right * _milli(top), norm=Normalize(0.0, top * _milli(top)), cmap=SIMILARITY_MAP, lower=False)
    in_thousandths = _milli(top) > 1 and _prints(right)
    beside.set_title("model_similarity" + (" (in the cells: 1/1000 nat)" if in_thousandths else ""))
    label = "model_similarity (nats; larger is less similar)"
    figure.colorbar(ScalarMappable(scale, SIMILARITY_MAP), ax=beside, label=label, pad=0.05)
    for panel in (ax, beside):
        mark_boundary(panel, results, left)
        _label(panel)
    if wide:
        ax.set_xlabel("")
    else:
        beside.set_ylabel("")
        beside.set_yticklabels([])
    _legend(figure, [left, right], optima=True, hatched=True)
    return figure


def normalised(results: pd.DataFrame) -> pd.DataFrame:
    """Each row of the grid minus its best, (R, E), at most 0, points."""
    grid = mean_grid(results)
    return grid.sub(grid.max(axis=1), axis=0)


def similarity_grid(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean model_similarity of each cell group over its pairs of seeds, then over dense seeds, (R, E), nats."""
    rows = pairs[pairs["pair"] == "mean"]
    rows = (rows if len(rows) else pairs).assign(ratio=lambda t: t["ratio"].round(9))
    means = rows.groupby(["ratio", "epoch", "dense_seed"])["model_similarity"].mean().groupby(["ratio", "epoch"]).mean()
    return means.unstack("epoch").sort_index().sort_index(axis=1)


def draw_grid(
    ax: Axes, grid: pd.DataFrame, *, norm: Normalize, cmap: str, print_values: bool = True, lower: bool = True,
    decimals: int | None = None,
) -> None:  # fmt: skip
    """The cells of a grid, heavy ratios on top; missing ones are crossed out; values printed where there is room.

    lower: print in the lower half of the cell, under the markers of `mark_optima`. decimals: of the values; none: one,
    and two where all are small.
    """
    values = grid.to_numpy(float)
    rows, columns = values.shape
    ax.pcolormesh(np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, np.ma.masked_invalid(values),
                  norm=norm, cmap=cmap, edgecolors="white", linewidth=0.4)  # fmt: skip
    for i, j in np.argwhere(np.isnan(values)):
        ax.add_patch(Rectangle((float(j) - 0.5, float(i) - 0.5), 1, 1, linewidth=0.3, hatch="xx", **NOT_RUN))
    if print_values and _prints(grid):
        if decimals is None:
            decimals = 1 if np.nanmax(np.abs(values)) >= 1 else 2
        for i, j in np.argwhere(np.isfinite(values)):
            red, green, blue, _ = colormaps[cmap](norm(values[i, j]))
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.52 else "white"
            number = round(float(values[i, j]), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
            text = f"{number:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
            ax.text(j, i - 0.2 * lower, text, ha="center", va="center", fontsize=6.6, color=ink)
    every = max(1, int(np.ceil(columns / (20 if print_values else 5))))
    shown = range(columns - 1, -1, -every)  # counted from the last epoch, which must have its tick
    ax.set_xticks([*shown], [f"{grid.columns[j]:g}" for j in shown])
    ax.set_yticks(range(rows), [f"{ratio:.6g}" for ratio in grid.index])
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5))
    for spine in ax.spines.values():
        spine.set_visible(False)


def _draw_scores(
    ax: Axes, grid: pd.DataFrame, norm: Normalize, unit: Unit, *, label: str, pad: float, lower: bool = True
) -> None:
    """The cells of a grid of scores in a unit, and their colour bar with the best on top."""
    scale, cmap = unit.scale(norm), unit.colours(SCORE_MAP)
    draw_grid(ax, unit.shown(grid), norm=scale, cmap=cmap, lower=lower, decimals=unit.decimals)
    cut = _extend(grid, norm)
    cut = "max" if cut == "min" and unit.less_is_better else cut
    bar = ax.figure.colorbar(ScalarMappable(scale, cmap), ax=ax, label=label, extend=cut, pad=pad)
    if unit.less_is_better:
        bar.ax.invert_yaxis()


def mark_optima(ax: Axes, results: pd.DataFrame, grid: pd.DataFrame, *, centred: bool = False) -> None:
    """A red star at the best epoch of each ratio and a ring at each epoch that ties with it."""
    lift = 0.0 if centred else 0.2
    place = {epoch: j for j, epoch in enumerate(grid.columns)}
    for i, (_, best) in enumerate(optimal_epochs(results).iterrows()):
        ties = [place[epoch] for epoch in best["ties"] if epoch != best["epoch"]]
        ax.plot(ties, [i + lift] * len(ties), "o", ms=4, mfc="none", mec="#e3342f", mew=1.1,
                path_effects=[withStroke(linewidth=2.0, foreground="white")])  # fmt: skip
        ax.plot(place[best["epoch"]], i + lift, ms=11 if not centred else 10, mew=0.8, zorder=5, **STAR)


def hatch_late_loss(ax: Axes, results: pd.DataFrame, grid: pd.DataFrame) -> None:
    """Hatch the cells past the best epoch that are half a point or more below it: the report's dark band."""
    best = optimal_epochs(results)["epoch"].to_numpy(float)[:, None]  # (R, 1)
    late = grid.columns.to_numpy(float)[None, :] > best  # (R, E)
    for i, j in np.argwhere(late & (grid.to_numpy(float) <= -LOSS)):
        corner = (float(j) - 0.5, float(i) - 0.5)
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=(1, 1, 1, 0.38), hatch="///", lw=0))


def mark_boundary(ax: Axes, results: pd.DataFrame, grid: pd.DataFrame) -> None:
    """A dashed line between the regimes, and their names at its right; no line if one regime fills the diagram."""
    line = regime_boundary(results, min_gain=LOSS, resamples=1)
    below = len(grid) if line.upper is None else int(np.argmin(np.abs(grid.index.to_numpy() - line.upper)))  # rows of I
    if 0 < below < len(grid):
        ax.axhline(
            below - 0.5,
            color="white",
            lw=1.6,
            ls=(0, (4, 2)),
            path_effects=[withStroke(linewidth=3.4, foreground="black")],
        )
    for low, high, name in ((0, below, "Regime I"), (below, len(grid), "Regime II")):
        if high - low >= 1:
            room = high - low >= 2
            text = name if room else name.replace("Regime ", "")
            ax.text(1.012, ((low + high) / 2) / len(grid), text, rotation=90 if room else 0, transform=ax.transAxes,
                    ha="left", va="center", fontsize=8.5, color=GREY, fontweight="bold")  # fmt: skip


def _canvas(grid: pd.DataFrame, panels: int = 1, *, stacked: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with a panel or more of the grid's size, side by side or `stacked`."""
    rows, columns = grid.shape
    down, across = (panels, 1) if stacked else (1, panels)
    width = float(np.clip(0.46 * columns, 3.6, 8.4)) * (1.0 if across == 1 else 0.8) + 2.0 - 0.4 * (across - 1)
    height = float(np.clip(0.42 * rows, 1.6, 6.0)) + 1.5 - 0.3 * (down - 1)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    return figure, list(figure.subplots(down, across, squeeze=False).flat)


def _label(ax: Axes) -> None:
    ax.set_xlabel(EPOCH_AXIS)
    ax.set_ylabel(RATIO_AXIS)


def _legend(figure: Figure, grids: list[pd.DataFrame], *, optima: bool, hatched: bool, unit: Unit = POINTS) -> None:
    missing = any(bool(grid.isna().to_numpy().any()) for grid in grids)
    handles: list[Line2D | Patch] = []
    if optima:
        handles.append(Line2D([], [], ms=11, label="best epoch of the ratio", **STAR))
        handles.append(
            Line2D([], [], marker="o", mfc="none", mec="#e3342f", ls="none", ms=5, label="within one s.d. of the best")
        )
    if hatched:
        handles.append(
            Patch(
                facecolor="#3b528b",
                edgecolor=(1, 1, 1, 0.7),
                hatch="///",
                label=f"later, and {unit.worse(LOSS)} or more",
            )
        )
    if missing:
        handles.append(Patch(hatch="xxx", label="not run", **NOT_RUN))
    if handles:
        beside = max(1, min(len(handles), int(figure.get_figwidth() / LEGEND_ENTRY)))
        figure.legend(handles=handles, loc="outside lower center", ncols=beside, handletextpad=0.4, columnspacing=1.4)


def _normalised_scale(grids: list[pd.DataFrame]) -> Normalize:
    """From a low decile of all cells up to 0: a few untrained checkpoints must not use up the colours."""
    values = np.concatenate([grid.to_numpy().ravel() for grid in grids])
    return Normalize(min(-1.0, float(np.floor(np.nanquantile(values, 0.1)))), 0.0)


def _extend(values: np.ndarray | pd.DataFrame, norm: Normalize) -> str:
    """Colour bars say by an arrow that the scale was cut off below."""
    return "min" if float(np.nanmin(np.asarray(values, float))) < float(norm.vmin or 0.0) else "neither"


def _below(score_label: str) -> str:
    return f"{score_label} minus best of the row"


def _prints(grid: pd.DataFrame) -> bool:
    return grid.shape[1] <= MOST_PRINTED[0] and grid.shape[0] <= MOST_PRINTED[1]


def _milli(top: float) -> float:
    """1000 when the largest value is too small for two decimals, else 1."""
    return 1000.0 if top < 0.5 else 1.0
