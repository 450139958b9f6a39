"""Figure 1, a drawing, not data: where stopping early wins (Regime II), where training to the end does (Regime I)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from twore.report.style import GREY, SCORE_MAP, STAR, styled

LINE = 0.52  # height of the drawn transition line, in parts of the axis


@styled
def two_regime_schematic() -> Figure:
    """The two regimes in the plane of training epochs (right) and prune ratio (up), drawn from no measurement."""
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    ax = figure.subplots()
    time, ratio = np.meshgrid(np.linspace(0, 1, 300), np.linspace(0, 1, 300))  # (300, 300) each
    ax.imshow(
        _caricature(time, ratio), extent=(0, 1, 0, 1), origin="lower", aspect="auto", cmap=SCORE_MAP, vmin=-1, vmax=0.0
    )
    ax.axhline(LINE, color="white", lw=2.2, ls=(0, (5, 3)))
    for height in (0.09, 0.2, 0.31, 0.42):
        ax.plot(_optimum(np.array(height)), height, ms=13, **STAR)
    for height in (0.62, 0.73, 0.84, 0.94):
        ax.plot(_optimum(np.array(height)), height, ms=13, **STAR)
    box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": "none", "alpha": 0.93}
    ax.text(
        0.7, 0.78, "Regime II: heavy pruning\nstop early, then prune", ha="center", va="center", bbox=box, fontsize=10
    )
    ax.text(
        0.42,
        0.24,
        "Regime I: light pruning\ntrain to convergence, then prune",
        ha="center",
        va="center",
        bbox=box,
        fontsize=10,
    )
    ax.text(0.985, LINE + 0.015, "transition line", color="white", ha="right", va="bottom", fontsize=9)
    ax.annotate(
        "",
        (1.045, 0.2),
        (1.045, 0.85),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.6},
    )
    ax.text(1.065, 0.52, "the line moves down with\na smaller model, more data", rotation=90, transform=ax.transAxes,
            ha="left", va="center", fontsize=9, color=GREY)  # fmt: skip
    ax.set_xticks([0.0, 1.0], ["initialisation", "convergence"])
    first, last = ax.get_xticklabels()  # inside the axis, not centred on its ends
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    ax.set_yticks([0.03, 0.97], ["light", "heavy"])
    ax.tick_params(length=0)
    ax.set_xlabel("training before pruning")
    ax.set_ylabel("prune ratio")
    ax.set_title("The two-regime model of pruning (a drawing; star: best time to stop)")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure


def _optimum(ratio: np.ndarray) -> np.ndarray:
    """Drawn best time to stop: late below the line, early above it."""
    return 0.32 + 0.62 / (1 + np.exp((ratio - LINE) * 30)) - 0.1 * np.clip(ratio - LINE, 0, 1)


def _caricature(time: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Drawn score below the best of its row: a slow rise, and above the line a fall after the best time."""
    best = _optimum(ratio)
    before = -1.2 * np.clip(best - time, 0, 1) ** 1.6
    after = -1.1 * np.clip(time - best, 0, 1) ** 0.9 / (1 + np.exp(-(ratio - LINE) * 30))
    return before + after
