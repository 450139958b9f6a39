"""The sentences of a verdict: why this checkpoint, why no answer and what to do then, what would change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from twore.advise.calibration import WORTH, Band, Level
from twore.advise.kinds import NETWORKS
from twore.advise.levels import cells_of
from twore.advise.shape import Shape

OUTSIDE = "outside"  # what was calibrated: nothing is known of such cases


class Doubt(NamedTuple):
    """Why there is no answer: in a word or two, and in sentences that say what to do then."""

    short: str
    reason: str


@dataclass(frozen=True, eq=False)
class Story:
    """What a verdict on one ratio rests on; fields as in `deciding.Seen`. lead: `Seen.gains` of the ratio, points."""

    ratio: float
    level: str
    k: int | None
    epoch: float | None
    shape: Shape | None
    about: Level | None
    band: Band | None
    lead: float


class Following(NamedTuple):
    """The next level of evidence: its name and cells, its calibration (None: not calibrated, or there is no further
    one), and why it would not answer here (None: as far as can be told, it would)."""

    level: str
    k: int
    about: Level | None
    doubt: Doubt | None


def why(story: Story) -> str:
    """Why this checkpoint; of a verdict without doubt, which has a shape and a band."""
    shape, band = story.shape, story.band
    if shape is None or band is None:
        raise ValueError("there is no reason for an answer without evidence")
    if story.level == "pilot":
        first = f"Fine-tuned, the advised checkpoint is the best of the shortlist{_far(story.lead)}"
    elif shape.at == len(shape.epochs) - 1:
        first = f"Pruned, the final checkpoint keeps most: {shape.last:.0f} % right before fine-tuning"
    else:
        first = (
            f"Pruned, the advised checkpoint keeps most: {shape.peak:.0f} % right before fine-tuning, the final "
            f"one {shape.last:.0f} %"
        )
    return (
        f"{first}. Where pruning leaves the network {band.name} like this, {percent(band.hits)} of such picks "
        f"were as good as the best checkpoint of all ({independent(band.clusters)})."
    )


def would_change(story: Story, following: Following | None) -> str:
    """What would change the answer: what the next level of evidence buys, and what it costs. following: None where no
    level answers."""
    if following is not None and following.about is None and story.level == "pilot":
        return "A second dense run: trainings of one network differ by more than a larger pilot gains."
    if following is None or following.about is None:
        return f"Next: {_by_hand(story.level)}."
    if following.doubt is not None:
        what = "A few batches" if following.level == "batches" else f"A pilot of {following.k}"
        return f"{what} would not answer here. {following.doubt.reason}"
    if following.level == "batches":
        what = "a few batches, to score each pruned checkpoint once"
    else:
        what = {
            "weights": f"a pilot of {following.k}, since a few batches tell nothing of such networks",
            "batches": f"a pilot that fine-tunes {following.k} of the checkpoints at this ratio",
            "pilot": f"a pilot of {following.k} instead of {cells_of(story.k)}",
        }[story.level]
    return f"Next: {what}; {_gain(story, following.about)}."


def not_calibrated(level: str) -> Doubt:
    """The calibration has no such level."""
    return Doubt(
        "not calibrated",
        f"How good advice at the level {level!r} is has never been measured: take a rule of thumb, or fine-tune more.",
    )


def no_signal(level: str) -> Doubt:
    """The level's signal is missing at the final checkpoint."""
    what = "power-law exponent" if level == "weights" else "score of the pruned final checkpoint"
    return Doubt("no evidence", f"There is no {what} at this ratio: measure it, or take a rule of thumb.")


def unfinished(unscored: int, epoch: float | None) -> Doubt | None:
    """A pilot without all its scores at this ratio, whose pick is compared with fewer than it was calibrated with; None
    for a whole one. unscored: of its cells; epoch: its pick."""
    if not unscored and epoch is not None:
        return None
    number = "None of" if epoch is None else f"Not all ({unscored} missing) of"
    return Doubt(
        "no evidence",
        f"{number} the shortlisted checkpoints have a fine-tuned score at this ratio: run the pilot to its end, or "
        "leave out a checkpoint that cannot be fine-tuned.",
    )


def one_checkpoint() -> Doubt:
    """Nothing to choose from."""
    return Doubt(
        "no evidence",
        "There is only one checkpoint, so there is nothing to choose from: save more of them while training.",
    )


def no_skill(level: str, about: Level) -> Doubt:
    """The level does not beat the rules of thumb anywhere."""
    what, then = {
        "weights": ("No signal from weights alone beats", "the next level of evidence"),
        "batches": ("For such networks a few batches do not beat", "a pilot"),
        "pilot": ("For such networks a pilot this small does not clearly beat", "a larger one"),
    }[level]
    mean, low, high = about.skill
    hangs = "; without one of them it may be none" if low > 0 else ""
    return Doubt(
        "no skill",
        f"{what} the rules of thumb on the settings measured so far (skill {mean:+.2f}, {low:+.2f} to {high:+.2f}, "
        f"0 is none{hangs}): take one of the rules of thumb, or {then} where that answers.",
    )


def other_kind(kind: str, kinds: tuple[str, ...], level: str) -> Doubt:
    """A kind of network that was never calibrated. kind, kinds: as `decide` and `Calibration.kinds`."""
    known = " or ".join(NETWORKS.get(each, each) for each in kinds)
    return Doubt(
        OUTSIDE,
        f"Networks with {NETWORKS.get(kind, kind)} were never calibrated (only those with {known}): {_by_hand(level)}.",
    )


def other_ratio(ratio: float, ratios: tuple[float, float], level: str) -> Doubt:
    """A ratio beyond the calibrated ones, fractions removed."""
    return Doubt(
        OUTSIDE,
        f"Ratio {ratio:g} lies outside the calibrated {ratios[0]:g} to {ratios[1]:g}: {_by_hand(level)}.",
    )


def other_number(number: int, fewest: int, most: int) -> Doubt:
    """More or fewer checkpoints than the calibration stands."""
    what = "save more of them" if number < fewest else "name fewer of them, evenly spread, the final one among them"
    return Doubt(
        OUTSIDE, f"{number} checkpoints are outside the {fewest} to {most} that the calibration covers: {what}."
    )


def other_score(shape: Shape) -> Doubt:
    """Scores that are no percentages, or that pruning raises."""
    return Doubt(
        OUTSIDE,
        f"A score of {shape.last:.3g} pruned against {shape.whole:.3g} unpruned is outside what was calibrated "
        "(percent right, 0 to 100): let the score be a percentage, or compare fine-tuned scores yourself.",
    )


def no_band(shape: Shape, level: str) -> Doubt:
    """What pruning leaves was seen in too few settings."""
    return Doubt(
        OUTSIDE,
        f"The pruned final checkpoint keeps {percent(shape.kept)} of its score, for which too few settings were "
        f"measured: {_by_hand(level)}.",
    )


def trivial_is_better(band: Band) -> Doubt:
    """In this band a rule of thumb lost less."""
    return Doubt(
        "a rule of thumb is better",
        f"Where pruning leaves the network {band.name} like this, the rule of thumb {band.trivial!r} lost less than "
        f"this evidence ({band.trivial_regret:.1f} against {band.regret[0]:.1f} points): take it.",
    )


def still_moving(shape: Shape) -> Doubt:
    """The signal still rises at the end."""
    return Doubt(
        "still moving",
        f"The pruned score still rises at the last checkpoint (by {shape.rise:.1f} points since the one before): "
        "train on and ask again; if you cannot, prune the last one.",
    )


def flat(shape: Shape) -> Doubt:
    """The signal ranges over no more than its noise."""
    return Doubt(
        "flat",
        f"The pruned score is flat: it ranges over {shape.peak - shape.low:.1f} points with a noise of "
        f"{shape.noise:.1f}, which tells no checkpoints apart. Fine-tune a pilot, or take the final checkpoint.",
    )


def noisy(shape: Shape) -> Doubt:
    """The peak stands out by less than the noise."""
    return Doubt(
        "noisier than its peak",
        f"The peak of the pruned score ({shape.peak - shape.elsewhere:.1f} points above the other checkpoints) is "
        f"smaller than its noise ({shape.noise:.1f}): score more batches, or fine-tune a pilot.",
    )


def percent(share: float) -> str:
    """A share of 1 as a whole percentage: 0.42 -> "42 %"."""
    return f"{100 * share:.0f} %"


def independent(clusters: int) -> str:
    """ "1 independent setting", "8 independent settings"."""
    return f"{clusters} independent setting{'' if clusters == 1 else 's'}"


def _by_hand(level: str) -> str:
    """What is left to do where no level answers; a pilot has done half of it."""
    if level == "pilot":
        return "compare the scores of the fine-tuned checkpoints yourself"
    return "fine-tune two or three checkpoints at this ratio and compare their scores yourself"


def _far(lead: float) -> str:
    """By how much a pick won, points of the seed and score it was chosen on; nothing where it is the final checkpoint,
    that was not fine-tuned, or it is no tenth of a point."""
    return f", {lead:.1f} points above the final one there" if lead >= 0.05 else ""


def _gain(story: Story, following: Level) -> str:
    """What the following level costs, and what its picks lost where pruning leaves as much."""
    cost = f"it cost {percent(following.cost)} of fine-tuning everything in the studies measured and"
    band = None if story.shape is None else following.band_of(story.shape.kept)  # of weights: NaN, so none
    if band is None:
        answered = [each for each in following.bands if following.answers(each)]
        mean = sum(each.regret[0] * each.pairs for each in answered) / max(1, sum(each.pairs for each in answered))
        return f"{cost} loses {mean:.1f} points in the mean where it answers"
    if story.band is None:
        return f"{cost} loses {band.regret[0]:.2g} points in the mean where pruning leaves the network {band.name}"
    words = f"loses {band.regret[0]:.2g} points in the mean where this loses {story.band.regret[0]:.2g}"
    if story.band.regret[0] - band.regret[0] < WORTH:
        return f"{cost} is hardly worth that here: it {words}"
    return f"{cost} {words}"
