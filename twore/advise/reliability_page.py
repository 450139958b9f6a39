"""The page about the calibration, docs/advise-calibration.md, from its numbers: words and tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from twore.advise.calibrating import BANDS, COVERAGE, FEWEST, STATED
from twore.advise.calibration import Calibration
from twore.advise.reliability import ALL
from twore.advise.wording import percent

COMMAND = "python -m twore.advise.calibrating {folders} --page docs/advise-calibration.md"


def page(calibration: Calibration, table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Markdown. table: `reliability` of rows, which are those of `left_out`."""
    made = calibration.made
    folders = made.get("folders", {})
    overall = table[table["band"] == ALL]
    unused = [folder for folder, number in folders.items() if number == 0]
    text = [
        "# How far to trust `twore advise`",
        "",
        "This page is written by the command that calibrates:",
        "",
        "```sh",
        COMMAND.format(folders=" ".join(f"recipes/{folder}" for folder in folders) or "DIR..."),
        "```",
        "",
        f"commit {made.get('commit', '?')}, {made.get('date', '?')}. It rests on {calibration.settings} settings in "
        f"**{calibration.clusters} clusters** that share no dense run, {calibration.dense_runs} dense runs judged; "
        f"networks were repaired before scoring by: {', '.join(calibration.kinds) or 'not known'}."
        + (f" Without the tables that the levels need: {', '.join(unused)}." if unused else ""),
        "",
        "Every number below is of advice on settings that were **not** in its calibration: each cluster is left out "
        "in turn, and a dense run is judged alone, as a user has it. *Right* means within the tie set: the mean test "
        "score of the pick is within one standard deviation of the fine-tune seeds of the best checkpoint's. The "
        f"confidence stated is the {percent(STATED)} quantile of the share that was right, over resampled clusters, so "
        "it should be rather too low.",
        "",
        "## Stated and observed",
        "",
        *_table(overall, first="level"),
        "",
        "![Stated and observed](figures/advise-reliability.png)",
        "",
        _requirement(overall),
        "",
        "## By what pruning leaves",
        "",
        f"*Kept* is the share of its score that the final checkpoint keeps when pruned and recalibrated: "
        f"{_bands()}. A band with fewer than {FEWEST} clusters is not answered.",
        "",
        *_table(table[table["band"] != ALL], first="band"),
        "",
        "## Where it does not answer",
        "",
        *_reasons(rows),
        "",
        "## Intervals, regimes, expected regret",
        "",
        f"An interval should hold the best checkpoint in {percent(COVERAGE)} of the pairs; its length is told as a share "
        "of the time between the first and the last checkpoint. The regime is judged against "
        " the three-way label of the fine-tuned grid of the same dense run: balanced accuracy, 33 % is chance.",
        "",
        *_others(overall, calibration),
        "",
    ]
    return "\n".join(text)


def _table(part: pd.DataFrame, *, first: str) -> list[str]:
    head = ["level"] + (["kept"] if first == "band" else [])
    head += ["pairs", "answered", "stated", "right (90 %)", "Brier", "of a constant", "regret", "best rule of thumb"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for _, row in part.iterrows():
        cells = (
            [row["level"]]
            + ([row["band"]] if first == "band" else [])
            + [f"{row['pairs']:,}", percent(row["answered"])]
        )
        if row["answered"] > 0:
            spread = "" if np.isnan(row["low"]) else f" ({percent(row['low'])} to {percent(row['high'])})"
            cells += [percent(row["stated"]), percent(row["observed"]) + spread, f"{row['brier']:.3f}"]
            cells += [f"{row['brier_constant']:.3f}", f"{row['regret']:.2f}", f"{row['trivial']:.2f}"]
        else:
            cells += ["–"] * 6
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _requirement(overall: pd.DataFrame) -> str:
    met = list(overall.loc[overall["requirement"], "level"])
    missed = overall[~overall["requirement"]]
    words = [
        "Asked was: an answer for at least 60 % of the pairs, right at least as often as stated, and a Brier score "
        f"below that of the best constant in hindsight. Met by: {', '.join(met) or 'no level'}."
    ]
    for _, row in missed.iterrows():
        why = [] if row["answered"] >= 0.6 else [f"answers {percent(row['answered'])}"]
        if row["answered"] > 0:
            if row["observed"] < row["stated"]:
                why.append("states more than is right")
            if row["brier"] >= row["brier_constant"]:
                why.append(f"Brier {row['brier']:.3f} against {row['brier_constant']:.3f}")
        words.append(f"Not by {row['level']}: {', '.join(why)}.")
    return " ".join(words)


def _bands() -> str:
    words = []
    for name, low, high in BANDS:
        upper = "" if np.isinf(high) else f"below {percent(high)}"
        lower = "" if np.isinf(low) else f"from {percent(low)}"
        words.append(" ".join(part for part in (f"*{name}*", lower, upper) if part))
    return ", ".join(words)


def _reasons(rows: pd.DataFrame) -> list[str]:
    """Each reason with how often it was given, and what the pick and the final checkpoint would have lost there."""
    silent = rows[rows["abstained"]]
    lines = [
        "| level | because | pairs | right, had it answered | regret | of the final checkpoint |",
        "|---|---|---|---|---|---|",
    ]
    for (level, reason), own in silent.groupby(["level", "doubt"], sort=False):
        lines.append(
            f"| {level} | {reason} | {len(own):,} | {percent(own['hit'].mean())} | {own['regret'].mean():.2f} "
            f"| {own['final'].mean():.2f} |"
        )
    return lines if len(silent) else ["Nowhere."]


def _others(overall: pd.DataFrame, calibration: Calibration) -> list[str]:
    head = "level | intervals hold the best | their mean length | regime, balanced accuracy | expected regret (90 %)"
    lines = [f"| {head} |", "|---|---|---|---|---|"]
    for _, row in overall.iterrows():
        bands = calibration.levels[row["level"]].bands
        losses = "; ".join(f"{b.name} {b.regret[0]:.2f} ({b.regret[1]:.2f} to {b.regret[2]:.2f})" for b in bands)
        regime = "–" if np.isnan(row["regime"]) else percent(row["regime"])
        lines.append(
            f"| {row['level']} | {percent(row['coverage'])} | {percent(row['length'])} | {regime} | {losses} |"
        )
    return lines
