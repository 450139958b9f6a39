"""The scoreboard as a picture: what each way of choosing the stopping epoch loses, at its mean and at its worst."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from twore.report.style import BLUE, GREEN, GREY, VERMILLION, styled

KINDS = {  # what a predictor needs: colour and marker, so that print without colour tells them apart too
    "nothing": (GREY, "s"), "weights": (VERMILLION, "^"), "a few batches": (GREEN, "D"), "pilot": (BLUE, "o"),
    "grid": ("#7b3f94", "v"),
}  # fmt: skip
LINEAR = 1.0  # points: below it the axis is linear, above logarithmic, since regrets run from 0 to tens; our choice
COLUMNS = (34, 82)  # points right of the axes where the columns of text end
CROWDED = 8.0  # points: an axis that reaches further has no room for a label at 0.25
WRAP = 60  # characters of a predictor's name on one line
TICKS = (-10, -5, -2, -1, 0, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)


@styled
def scoreboard_chart(board: pd.DataFrame, *, unit: str = "score points", most: int = 40) -> Figure:
    """Mean regret of each predictor with its interval, its worst setting, and its cost; best on top.

    board: as `twore.analysis.scoreboard` returns it, best first; the first `most` rows are drawn, and every
        trivial rule. Marks: mean over settings, bar its 90 % interval over clusters of settings (none with one),
        cross the worst setting's mean. Hollow: trivial rules; the dashed line is the best of those that apply to every
        setting. Beside: cost as a share of the grid's fine-tuning epochs, and in how many settings the rule applies.
    ValueError for an empty board.
    """
    if board.empty:
        raise ValueError("the scoreboard has no rows: nothing to draw")
    number = np.arange(len(board))
    rows = board[(number < most) | board["trivial"].astype(bool).to_numpy()].reset_index(drop=True)
    figure = Figure(figsize=(8.6, 1.7 + 0.29 * len(rows)), layout="constrained")
    ax = figure.subplots()
    full = int(board["settings"].max())
    for y, (_, row) in enumerate(rows.iterrows()):
        colour, marker = KINDS[row["needs"]]
        low, high = row["mean_low"], row["mean_high"]
        if np.isfinite(low):
            ax.plot([low, high], [y, y], color=colour, lw=2.0, solid_capstyle="butt", alpha=0.6)
        ax.plot([row["mean_regret"], row["worst_regret"]], [y, y], color=colour, lw=0.7, ls=":")
        ax.plot(row["worst_regret"], y, marker="x", ms=5, mew=1.3, color=colour)
        ax.plot(row["mean_regret"], y, marker=marker, ms=6.5, color=colour, zorder=5,
                mfc="white" if row["trivial"] else colour, mec=colour, mew=1.3)  # fmt: skip
        _beside(ax, y, _cost(row["cost"]), f"{row['settings']:g} of {full}")
    _beside(ax, -0.95, "cost", "settings", color=GREY)
    everywhere = rows[rows["trivial"].astype(bool) & (rows["settings"] == full)]
    if len(everywhere):
        ax.axvline(everywhere["mean_regret"].min(), color=GREY, ls="--", lw=1.0, zorder=0)
    ax.set_xscale("symlog", linthresh=LINEAR)
    values = rows[["mean_regret", "worst_regret", "mean_low", "mean_high"]].to_numpy(float)
    left, right = min(0.0, float(np.nanmin(values)) * 1.1), float(np.nanmax(values)) * 1.15
    ax.set_xlim(left - 0.03 * LINEAR, max(right, 0.3))
    ticks = TICKS if right < CROWDED else [tick for tick in TICKS if tick != 0.25]
    ax.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if left <= tick <= max(right, 0.3)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda x, at: f"{x:g}")
    ax.set_yticks(range(len(rows)), [fill(name, WRAP) for name in rows["predictor"]], fontsize=7.5)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.set_axisbelow(True)
    ax.set_xlabel(f"regret ({unit}; linear to {LINEAR:g}, then logarithmic)")
    figure.suptitle("What each way of choosing the epoch loses", x=0.01, ha="left", fontsize=11, fontweight="bold")
    used = [needs for needs in KINDS if (rows["needs"] == needs).any()]
    handles = [Line2D([], [], color=KINDS[n][0], marker=KINDS[n][1], ls="none", label=_needs(n)) for n in used]
    handles += [
        Line2D([], [], color=GREY, marker="o", mfc="white", ls="none", label="hollow: trivial rule"),
        Line2D([], [], color=GREY, marker="x", ls="none", label="worst setting"),
    ]
    if len(everywhere):
        handles.append(Line2D([], [], color=GREY, ls="--", lw=1.0, label="best trivial rule"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _beside(ax: Axes, y: float, *texts: str, color: str = "black") -> None:
    """Columns of text right of the axes, at the height of a row."""
    for text, reach in zip(texts, COLUMNS):
        ax.annotate(text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(reach, 0), textcoords="offset points",
                    va="center", ha="right", fontsize=8, color=color, annotation_clip=False)  # fmt: skip


def _needs(kind: str) -> str:
    words = {"pilot": "a few fine-tuned cells", "grid": "the whole grid"}
    return f"needs {words.get(kind, kind)}"


def _cost(share: float) -> str:
    """A share of the grid in percent: "0", "0.4 %", "12 %", or a dash where it is not known."""
    if not np.isfinite(share):
        return "–"
    return "0" if share == 0 else f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
