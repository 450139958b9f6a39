"""An `Advice` as text: a table of the answer, then why, then what it cost."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np

from twore.advise.advice import Advice
from twore.advise.deciding import Verdict
from twore.analysis.regimes import selection_column

WIDTH = 110  # columns
LEVELS = {
    "weights": "weights alone: no data, nothing fine-tuned",
    "batches": "a few batches: every pruned checkpoint scored, nothing fine-tuned",
    "pilot": "a pilot: a few pruned checkpoints fine-tuned",
}


def in_words(advice: Advice) -> str:
    """The table, a paragraph a ratio, costs and notes."""
    lines = [headline(advice), "", *table(advice), ""]
    for verdict in advice.verdicts:
        lines += [*paragraph(advice, verdict), ""]
    lines += [f"cost: {cost}" for cost in advice.costs]
    lines += [_wrapped(f"note: {note}", "      ") for note in advice.notes]
    return "\n".join(lines)


def headline(advice: Advice) -> str:
    """The level, and how many ratios it answers."""
    answered = sum(not verdict.abstained for verdict in advice.verdicts)
    what = f"{len(advice.checkpoints)} checkpoints, from {LEVELS[advice.level]}"
    if answered == len(advice.verdicts):
        return f"Which checkpoint to prune: {what}."
    if answered:
        return f"Which checkpoint to prune: {what}. An answer for {answered} of {len(advice.verdicts)} ratios."
    return f"No answer from {what}. What the rules of thumb say, and what to do next:"


def table(advice: Advice) -> list[str]:
    """A row a ratio."""
    names = short_names(advice)
    rows = [("ratio", "prune", f"best between ({advice.unit})", "confidence", "regret (points)", "regime")]
    for verdict in advice.verdicts:
        low, high = verdict.interval
        pick = names.get(verdict.epoch, "") if verdict.epoch is not None else ""
        regret = verdict.expected_regret
        rows.append((
            f"{verdict.ratio:g}", "no answer" if verdict.abstained else pick, f"{low:g} to {high:g}",
            "" if verdict.abstained else f"{verdict.confidence:.0%}",
            "" if verdict.abstained or regret is None else f"{regret[0]:.1f} ({regret[1]:.1f} to {regret[2]:.1f})",
            "" if verdict.abstained else verdict.regime or "",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def paragraph(advice: Advice, verdict: Verdict) -> list[str]:
    """Why, what the rules of thumb say, what a pilot scored, what would change it."""
    lines = [f"ratio {verdict.ratio:g}: {verdict.reason}", f"  rules of thumb: {rules_in_words(advice, verdict)}"]
    if verdict.settings and not verdict.abstained:
        lines.append(f"  rests on {verdict.settings} independent settings of the calibration")
    if scores := fine_tuned(advice, verdict):
        lines.append(f"  fine-tuned: {scores}")
    lines.append(f"  {verdict.would_change}")
    return [_wrapped(line, "  ") for line in lines]


def rules_in_words(advice: Advice, verdict: Verdict) -> str:
    """What the rules of thumb say, those that agree together."""
    names = short_names(advice)
    rules: dict[str, list[str]] = {}
    for rule, position in verdict.trivial_rules.items():
        rules.setdefault(names[_nearest(names, position)], []).append(rule)
    return "; ".join(f"{name} ({', '.join(rule)})" for name, rule in rules.items()) or "none applies"


def fine_tuned(advice: Advice, verdict: Verdict) -> str:
    """The scores that a pilot chose by at this ratio, best first; "" below a pilot."""
    if advice.cells.empty:
        return ""
    names, column = short_names(advice), selection_column(advice.cells)
    own = advice.cells[np.isclose(advice.cells["ratio"], verdict.ratio)].sort_values(column, ascending=False)
    return "; ".join(f"{names[_nearest(names, at)]} {score:.1f}" for at, score in zip(own["epoch"], own[column]))


def short_names(advice: Advice) -> dict[float, str]:
    """Position -> the shortest name that tells checkpoints apart: the file's or folder's own, else the whole path."""
    paths = [Path(path) for path in advice.checkpoints["path"]]
    own = [path.name for path in paths]
    names = own if len(set(own)) == len(own) else [str(path) for path in paths]
    return dict(zip(advice.checkpoints["epoch"].astype(float), names))


def _nearest(names: dict[float, str], position: float) -> float:
    return min(names, key=lambda known: abs(known - position))


def _wrapped(text: str, indent: str) -> str:
    return fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
