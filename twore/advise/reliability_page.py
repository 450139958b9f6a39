"""The page about the calibration, docs/advise-calibration.md, from its numbers: words and tables."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from twore.advise.calibrating import BANDS, COVERAGE, FEWEST, STATED, USED
from twore.advise.calibration import Calibration
from twore.advise.reliability import ALL, reliability
from twore.advise.wording import percent

COMMAND = "python -m twore.advise.calibrating \\\n    {folders} \\\n    --page docs/advise-calibration.md"


JUDGED = (
    "Every number below is of advice on settings that were **not** in its calibration: each cluster is left out in "
    "turn, and a dense run is judged alone, as a user has it. *Right* means within the tie set: the mean test score "
    "of the pick is within one standard deviation of the fine-tune seeds of the best checkpoint's. A pilot is judged "
    "on the fine-tune seeds that it did not choose with, in this as in its regret: one seed of two, a noisier measure"
    " than that of a few batches (the best checkpoint stays that of all seeds). The confidence stated is the {stated}"
    " quantile of the share that was right, over resampled clusters, so it should be rather too low. Regrets are "
    "points of the test score, of the pairs answered; beside them what rules of thumb lose on the same pairs: the "
    "best one on the other clusters, and *a band's*, the best one there among pairs that pruning leaves in the same "
    "state (below), which is harder to beat."
)
CHOSEN = (
    "**What leaving out does not undo.** *Independent* means here that no dense run is shared: clusters still share "
    "data, seeds and kind of network. Whether a level is used at all is decided from all settings: it has to beat the "
    "rules of thumb whichever cluster is left out, else it answers nothing below either. And the rule of each level, "
    "the bands, the quantile stated, the limits for abstaining and those for the number of checkpoints were chosen "
    "with these same settings in view. On other data expect less than the tables say. The verdicts of a pilot count "
    "each (dense run, ratio) once a fine-tune seed it was played with."
)
KINDS = (
    "Networks with BatchNorm have its statistics estimated again after pruning (*batchnorm*), others the outputs of "
    "their pruned layers rescaled (*outputs*). What such a score is worth differs between the two, so they are "
    "calibrated apart, and so is the rule of thumb they are compared with."
)
SKILL = (
    "1 - regret / that of the best rule of thumb, of all settings; 0 is no better, and the range is the 90 % one over "
    "resampled clusters. *Least* is the lowest lower end of such ranges with one cluster left out. A level is used "
    "where it is above 0."
)
KEPT = (
    "*Kept* is the share of its score that the final checkpoint keeps when pruned and recalibrated: {bands}. (A study "
    "has no score of the unpruned network: that of its lightest ratio stands for it here, which makes the lightest "
    "ratio intact by definition.) A band with fewer than {fewest} clusters beside the one judged is not answered, so "
    "that what is used has {used}. *Stated now* is the confidence that `twore advise` gives, from all clusters; – "
    "where it does not answer. Within a band the same confidence is stated for all, so that a Brier score cannot be "
    "below the constant's there: what tells good picks from bad ones is the band."
)
OTHERS = (
    "An interval should hold the best checkpoint in {coverage} of the pairs; its length is told as a share of the "
    "time between the first and the last checkpoint. The regime is judged against the three-way label of the "
    "fine-tuned grid of the same dense run: balanced accuracy, 33 % is chance. Expected regrets are those stated, "
    "from all settings."
)
NUMBER = (
    "Checkpoints are answered from half as many as calibrated, of which what is stated is rather too low, up to the "
    "calibrated number and no further: with twice as many, some levels state more than is right. That is read off "
    "these tables, where every level is judged, used or not:"
)


def page(
    calibration: Calibration, rows: pd.DataFrame, table: pd.DataFrame, fewer: pd.DataFrame, more: pd.DataFrame
) -> str:
    """Markdown. rows: of `left_out`; table: their `reliability`; fewer, more: that of judging half and twice as many
    checkpoints as calibrated."""
    folders = " \\\n    ".join(f"recipes/{folder}" for folder in calibration.made.get("folders", {})) or "DIR..."
    overall, by_kind = table[table["band"] == ALL], _by_kind(rows, calibration)
    whole, bands = by_kind[by_kind["band"] == ALL], by_kind[by_kind["band"] != ALL]
    parts = [
        "# How far to trust `twore advise`",
        "This page is written by the command that calibrates:",
        f"```sh\n{COMMAND.format(folders=folders)}\n```",
        _wrapped(_origin(calibration)),
        _wrapped(JUDGED.format(stated=percent(STATED))),
        _wrapped(CHOSEN),
        "## Stated and observed",
        _table(overall),
        "![Stated and observed](figures/advise-reliability.png)",
        _wrapped(_requirement(overall)),
        "## By kind of network",
        _wrapped(KINDS),
        _table(whole, "repair"),
        *(_wrapped(f"{kind}: {_requirement(own)}") for kind, own in whole.groupby("repair", sort=False)),
        "## Skill, which decides what is used",
        _wrapped(SKILL),
        _skills(calibration),
        "## By what pruning leaves",
        _wrapped(KEPT.format(bands=_bands(), fewest=FEWEST, used=USED)),
        _table(bands, "repair", "kept", "stated now"),
        *warnings_of(bands),
        "## Where it does not answer",
        _reasons(rows),
        "## Intervals, regimes, expected regret",
        _wrapped(OTHERS.format(coverage=percent(COVERAGE))),
        _others(overall, calibration),
        "## With another number of checkpoints",
        _wrapped(NUMBER),
        "Half as many as calibrated:",
        _table(_answering(fewer)),
        "Twice as many as calibrated (calibrated on every second one, judged on all):",
        _table(_answering(more)),
    ]
    return "\n\n".join(parts) + "\n"


def stated_now(calibration: Calibration, kind: str, level: str, band: str) -> str:
    """The confidence that `advise` gives there, as a percentage; "–" where it does not answer."""
    about = calibration.of_kind(kind).levels.get(level)
    if about is None:
        return "–"
    own = [each for each in about.bands if each.name == band and about.answers(each)]
    return percent(own[0].confidence) if own else "–"


def warnings_of(bands: pd.DataFrame) -> list[str]:
    """Where more was stated than was right, and where a rule of thumb would have done as well."""
    answered = bands[bands["answered"] > 0]
    words = {
        "More was stated than was right": answered[answered["stated"] > answered["observed"]],
        "No better than the band's own rule of thumb": answered[answered["regret"] >= answered["trivial_in_band"]],
    }
    named = {
        what: [", ".join(row) for row in own[["level", "repair", "kept"]].to_numpy()] for what, own in words.items()
    }
    return [_wrapped(f"{what}: {'; '.join(rows) or 'nowhere'}.") for what, rows in named.items()]


def _by_kind(rows: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """`reliability` of each kind of repair and band, with the columns repair, kept (the band) and "stated now"."""
    own = rows[rows["level"] != "weights"]
    found = pd.concat([reliability(part).assign(repair=kind) for kind, part in own.groupby("kind")], ignore_index=True)
    now = [stated_now(calibration, *place) for place in zip(found["repair"], found["level"], found["band"])]
    return found.assign(kept=found["band"], **{"stated now": now})


def _skills(calibration: Calibration) -> str:
    lines = ["| level | repair | skill (90 %) | least | used |", "|---|---|---|---|---|"]
    for kind, levels in [("any", calibration.levels), *calibration.repaired.items()]:
        for name, level in levels.items():
            mean, low, high = level.skill
            least = "–" if level.least_skill is None else f"{level.least_skill:+.3f}"
            told = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
            lines.append(f"| {name} | {kind} | {told} | {least} | {'yes' if level.has_skill else 'no'} |")
    return "\n".join(lines)


def _answering(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["band"] == ALL) & (table["answered"] > 0)]


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 120, break_on_hyphens=False))


def _origin(calibration: Calibration) -> str:
    made = calibration.made
    unused = [folder for folder, number in made.get("folders", {}).items() if number == 0]
    return (
        f"Commit {made.get('commit', '?')}, {made.get('date', '?')}. It rests on {calibration.settings} settings in "
        f"**{calibration.clusters} clusters** that share no dense run, with {calibration.dense_runs} judgements of a "
        "dense run in a setting. "
        f"Ways of repairing pruned networks before scoring that it knows: {', '.join(calibration.kinds) or 'none'}."
        + (f" Not in it, for want of tables, or of settings of their kind: {', '.join(unused)}." if unused else "")
    )


def _table(part: pd.DataFrame, *more: str) -> str:
    """more: columns of words after the level's."""
    head = ["level", *more, "pairs", "answered", "stated", "right (90 %)", "Brier", "of a constant", "regret"]
    head += ["best rule of thumb", "a band's"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for _, row in part.iterrows():
        cells = [row["level"], *(row[name] for name in more), f"{row['pairs']:,}", percent(row["answered"])]
        if row["answered"] > 0:
            spread = "" if np.isnan(row["low"]) else f" ({percent(row['low'])} to {percent(row['high'])})"
            cells += [percent(row["stated"]), percent(row["observed"]) + spread]
            cells += [f"{row[name]:.3f}" for name in ("brier", "brier_constant")]
            cells += [f"{row[name]:.2f}" for name in ("regret", "trivial", "trivial_in_band")]
        else:
            cells += ["–"] * 7
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _requirement(overall: pd.DataFrame) -> str:
    met = list(overall.loc[overall["requirement"], "level"])
    missed = overall[~overall["requirement"]]
    words = [
        "Asked was: an answer for at least 60 % of the pairs, right at least as often as stated, and a Brier score "
        f"below that of the best constant in hindsight. Met by: {', '.join(met) or 'no level'}."
    ]
    for _, row in missed.iterrows():
        if row["answered"] == 0:
            words.append(f"{row['level'].capitalize()} answers nothing.")
            continue
        why = [] if row["answered"] >= 0.6 else [f"answers {percent(row['answered'])}"]
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


def _reasons(rows: pd.DataFrame) -> str:
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
    return "\n".join(lines) if len(silent) else "Nowhere."


def _others(overall: pd.DataFrame, calibration: Calibration) -> str:
    head = "level | intervals hold the best | their mean length | regime, balanced accuracy | expected regret (90 %)"
    lines = [f"| {head} |", "|---|---|---|---|---|"]
    for _, row in overall.iterrows():
        losses = "; ".join(
            f"{kind} {b.name} {b.regret[0]:.2f} ({b.regret[1]:.2f} to {b.regret[2]:.2f})".strip()
            for kind, levels in [("", calibration.levels), *calibration.repaired.items()]
            if row["level"] in levels
            for b in levels[row["level"]].bands
        )
        regime = "–" if np.isnan(row["regime"]) else percent(row["regime"])
        lines.append(
            f"| {row['level']} | {percent(row['coverage'])} | {percent(row['length'])} | {regime} | {losses} |"
        )
    return "\n".join(lines)
