"""The figure of an `Advice`: what was measured along training, and the answer at each ratio."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twore.advise.advice import Advice
from twore.advise.levels import WEIGHTS_METRIC
from twore.report.style import BLUE, DPI, GREY, LINES, STAR, VERMILLION, styled

FORMATS = ("png", "svg", "pdf")


@styled
def draw(advice: Advice) -> Figure:
    """Left: the signal of the level along training. Right: a row a ratio, from light to heavy pruning."""
    figure = Figure(figsize=(10.4, max(3.4, 1.9 + 0.34 * len(advice.verdicts))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _signal(left, advice)
    _answers(right, advice)
    return figure


def image(advice: Advice, suffix: str = ".png") -> bytes:
    """The figure as the bytes of a file. ValueError for a kind of file that is none of FORMATS."""
    kind = kind_of(suffix)
    buffer = BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {}
    draw(advice).savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def kind_of(suffix: str) -> str:
    """One of FORMATS, by a file's ending. ValueError for another ending."""
    kind = suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"a figure is written as {', '.join(FORMATS)}: got {suffix or 'no ending'!r}")
    return kind


def alt(advice: Advice) -> str:
    """What the figure shows, in words, for those who cannot see it."""
    shown = "the score of the pruned checkpoints after repair" if _has_scores(advice) else "the power-law exponent"
    return f"Two panels over the {advice.unit}: {shown}; and for each ratio the advised checkpoint with its interval."


def _signal(ax: Axes, advice: Advice) -> None:
    ax.set_xlabel(advice.unit)
    if _has_scores(advice):
        for i, (ratio, rows) in enumerate(advice.probes.groupby("ratio")):
            colour, dash, marker = LINES[i % len(LINES)]
            ax.plot(rows["epoch"], rows["recalibrated_score"], color=colour, ls=dash, marker=marker, ms=4,
                    label=f"{ratio:g}")  # fmt: skip
        ax.legend(title="ratio", ncols=2)
        ax.set_title("score of the pruned checkpoint after repair", loc="left")
    elif WEIGHTS_METRIC in advice.checkpoints and advice.checkpoints[WEIGHTS_METRIC].notna().any():
        table = advice.checkpoints
        ax.plot(table["epoch"], table[WEIGHTS_METRIC], color=BLUE, marker="o", ms=4)
        ax.set_title("power-law exponent of the weights' spectra", loc="left")
    else:
        means = advice.probes.groupby("epoch")["prune_perturbation"].mean()
        ax.plot(means.index, means, color=BLUE, marker="o", ms=4)
        ax.set_title("part of the weights' norm that pruning removes", loc="left")
    ax.grid(axis="y")


def _answers(ax: Axes, advice: Advice) -> None:
    places = {"final checkpoint": "s", "best dense validation score": "D", "last before the first rate drop": "v"}
    for y, verdict in enumerate(advice.verdicts):
        low, high = verdict.interval
        colour = GREY if verdict.abstained else BLUE
        ax.plot([low, high], [y, y], color=colour, lw=6, alpha=0.25 if verdict.abstained else 0.45,
                solid_capstyle="butt")  # fmt: skip
        for rule, position in verdict.trivial_rules.items():
            ax.plot(position, y - 0.22, marker=places.get(rule, "|"), ms=4, color=VERMILLION, mfc="white", ls="none")
        if verdict.abstained:
            ax.annotate("no answer", (float(np.mean(verdict.interval)), y), ha="center", va="bottom", color=GREY,
                        xytext=(0, 4), textcoords="offset points", fontsize=8)  # fmt: skip
        elif verdict.epoch is not None:
            ax.plot(verdict.epoch, y, ms=13, **STAR)
            ax.annotate(f"{verdict.confidence:.0%}", (verdict.epoch, y), ha="center", va="bottom",
                        xytext=(0, 6), textcoords="offset points", fontsize=8)  # fmt: skip
    ax.set_yticks(range(len(advice.verdicts)), [f"{verdict.ratio:g}" for verdict in advice.verdicts])
    ax.set_ylim(-0.6, len(advice.verdicts) - 0.4)
    positions = advice.checkpoints["epoch"]
    margin = 0.04 * (positions.max() - positions.min())
    ax.set_xlim(positions.min() - margin, positions.max() + margin)
    ax.set_ylabel("ratio")
    ax.set_xlabel(
        f"{advice.unit}\nstar: prune this; bar: where the best lies\nsquare: final; other marks: rules of thumb"
    )
    ax.set_title("which checkpoint to prune", loc="left")


def _has_scores(advice: Advice) -> bool:
    return "recalibrated_score" in advice.probes and bool(advice.probes["recalibrated_score"].notna().any())
