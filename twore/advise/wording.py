"""The sentences of a verdict: why this checkpoint, why no answer and what to do then, what would change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from twore.advise.calibration import Band, Calibration, Level
from twore.advise.levels import cells_of
from twore.advise.shape import Shape

WORTH = 0.1  # points: a rule of thumb, or the next level, has to lose this much less to be preferred; our choice
OUTSIDE = "outside"  # what was calibrated: nothing is known of such cases
BY_HAND = "Fine-tuning two or three checkpoints at this ratio and comparing their scores."


class Doubt(NamedTuple):
    """Why there is no answer: in a word or two, and in sentences that say what to do then."""

    short: str
    reason: str


@dataclass(frozen=True, eq=False)
class Story:
    """What a verdict on one ratio rests on; fields as in `deciding.Seen`."""

    ratio: float
    level: str
    k: int | None
    epoch: float | None
    shape: Shape | None
    about: Level | None
    band: Band | None


def why(story: Story) -> str:
    """Why this checkpoint; of a verdict without doubt, which has a shape and a band."""
    shape, band = story.shape, story.band
    if shape is None or band is None:
        raise ValueError("there is no reason for an answer without evidence")
    if story.level == "pilot":
        first = "Fine-tuned, the advised checkpoint is the best of the shortlist"
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


def would_change(story: Story, calibration: Calibration) -> str:
    """What would change the answer: what the next level of evidence buys, and what it costs."""
    cells = cells_of(story.k)
    if story.level == "weights":
        batches, pilot = calibration.level("batches"), calibration.level("pilot")
        if batches is not None and not batches.has_skill and pilot is not None:
            return _next(story, pilot, f"Next: a pilot of {cells}, since a few batches tell nothing of such networks")
        return _next(story, batches, "Next: a few batches, to score each pruned checkpoint once")
    if story.level == "batches":
        what = f"Next: a pilot that fine-tunes {cells} of the checkpoints at this ratio"
        return _next(story, calibration.level("pilot", cells), what)
    more = [number for number in calibration.pilots() if number > cells]
    if more:
        return _next(story, calibration.level("pilot", more[0]), f"Next: a pilot of {more[0]} instead of {cells}")
    return "A second dense run: trainings of one network differ by more than a larger pilot gains."


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
        "weights": ("No signal from weights alone beats", "take the next level of evidence"),
        "batches": ("For such networks a few batches do not beat", "fine-tune a pilot"),
        "pilot": ("For such networks a pilot this small does not clearly beat", "fine-tune a larger one"),
    }[level]
    mean, low, high = about.skill
    return Doubt(
        "no skill",
        f"{what} the rules of thumb on the settings measured so far (skill {mean:+.2f}, {low:+.2f} to {high:+.2f}, "
        f"0 is none): {then}, else take one of the rules of thumb.",
    )


def other_kind(kind: str, kinds: tuple[str, ...]) -> Doubt:
    """A kind of network that was never calibrated. kind, kinds: as `decide` and `Calibration.kinds`."""
    known = " or ".join(kinds) or "nothing"
    return Doubt(
        OUTSIDE,
        f"Networks repaired by {kind!r} before scoring were never calibrated (only by {known}): fine-tune two or three "
        "checkpoints at this ratio and compare their scores yourself.",
    )


def other_ratio(ratio: float, ratios: tuple[float, float]) -> Doubt:
    """A ratio beyond the calibrated ones, fractions removed."""
    return Doubt(
        OUTSIDE,
        f"Ratio {ratio:g} lies outside the calibrated {ratios[0]:g} to {ratios[1]:g}: fine-tune two or three "
        "checkpoints there and compare their scores yourself.",
    )


def other_number(number: int, fewest: int, most: int) -> Doubt:
    """More or fewer checkpoints than the calibration stands."""
    what = "save more of them" if number < fewest else "name fewer of them, evenly spread, the final one among them"
    return Doubt(
        OUTSIDE, f"{number} checkpoints are outside the {fewest} to {most} that the calibration stands: {what}."
    )


def other_score(shape: Shape) -> Doubt:
    """Scores that are no percentages, or that pruning raises."""
    return Doubt(
        OUTSIDE,
        f"A score of {shape.last:.3g} pruned against {shape.whole:.3g} unpruned is outside what was calibrated "
        "(percent right, 0 to 100): let the score be a percentage, or compare fine-tuned scores yourself.",
    )


def no_band(shape: Shape) -> Doubt:
    """What pruning leaves was seen in too few settings."""
    return Doubt(
        OUTSIDE,
        f"The pruned final checkpoint keeps {percent(shape.kept)} of its score, for which too few settings were "
        "measured: fine-tune two or three checkpoints at this ratio and compare their scores yourself.",
    )


def trivial_is_better(band: Band) -> Doubt:
    """In this band a rule of thumb lost less."""
    return Doubt(
        "a rule of thumb is better",
        f"Where pruning leaves the network {band.name} like this, the rule of thumb {band.trivial!r} lost less than "
        f"this evidence ({band.trivial_regret:.1f} against {band.regret[0]:.1f} points): take it, or the next level.",
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


def _next(story: Story, following: Level | None, what: str) -> str:
    if following is None:
        return BY_HAND
    cost = f"{what}; it cost {percent(following.cost)} of fine-tuning everything in the studies measured"
    mine = story.band
    band = None if mine is None else next((each for each in following.bands if each.name == mine.name), None)
    if band is None or mine is None:
        pairs = max(1, sum(each.pairs for each in following.bands))
        mean = sum(each.regret[0] * each.pairs for each in following.bands) / pairs
        return f"{cost} and loses {mean:.1f} points in the mean over all ratios."
    words = f"loses {band.regret[0]:.2g} points in the mean where this loses {mine.regret[0]:.2g}"
    if mine.regret[0] - band.regret[0] < WORTH:
        return f"{cost} and is hardly worth that here: it {words}."
    return f"{cost} and {words}."
