"""The sentences of a verdict: why this checkpoint, why no answer and what to do then, what would change it."""

from __future__ import annotations

from dataclasses import dataclass

from twore.advise.calibration import Band, Calibration, Level
from twore.advise.levels import cells_of
from twore.advise.shape import Shape

TRIVIAL = "the rules of thumb are all there is"


@dataclass(frozen=True, eq=False)
class Story:
    """What a verdict on one ratio rests on; fields as in `deciding.decide`."""

    ratio: float
    level: str
    epoch: float | None
    shape: Shape | None
    about: Level | None
    band: Band | None
    trivial: dict[str, float]


def why(story: Story) -> str:
    """Why this checkpoint."""
    shape, band = story.shape, story.band
    assert shape is not None and band is not None  # a verdict without doubt has both
    left = f"the pruned final checkpoint keeps {shape.last:.0f} % right before fine-tuning ({band.name})"
    if story.level == "pilot":
        first = f"fine-tuned, checkpoint {story.epoch:g} is the best of the shortlist"
    elif shape.at == len(shape.epochs) - 1:
        first = "what pruning leaves right is largest at the final checkpoint"
    else:
        first = f"what pruning leaves right is largest at {story.epoch:g}: {shape.peak:.0f} % against {shape.last:.0f} % at the end"  # fmt: skip
    return f"{_capital(first)}; {left}. In such cases {band.hits:.0%} of these picks were as good as the best of all checkpoints ({band.clusters} independent settings)."  # fmt: skip


def would_change(story: Story, calibration: Calibration, k: int | None) -> str:
    """What would change the answer, and what the next level of evidence buys and costs."""
    if story.level == "weights":
        return _next(story, calibration.level("batches"), "a few batches (scoring each pruned checkpoint once)")
    if story.level == "batches":
        return _next(story, calibration.level("pilot"), f"a pilot of {cells_of(None)} (fine-tuning {cells_of(None)} checkpoints at this ratio)")  # fmt: skip
    more = [cells for cells in calibration.pilots() if cells > cells_of(k)]
    if more:
        return _next(story, calibration.level("pilot", more[0]), f"a pilot of {more[0]} ({more[0] - cells_of(k)} more fine-tuning at this ratio)")  # fmt: skip
    return "More dense runs: what is best differs between two trainings of the same network more than a larger pilot gains."  # fmt: skip


def not_calibrated(level: str) -> str:
    return f"Nothing is known of how good advice at the level {level!r} is: {TRIVIAL}, or a larger pilot."


def no_signal(level: str) -> str:
    what = "powerlaw_alpha" if level == "weights" else "recalibrated score"
    return f"There is no {what} at this ratio, or none of the final checkpoint: measure it, or take a rule of thumb."


def no_pick() -> str:
    return "None of the shortlisted checkpoints has a fine-tuned score at this ratio: run the pilot to its end."


def one_checkpoint() -> str:
    return "There is only one checkpoint, so there is nothing to choose: save more of them while training."


def no_skill(about: Level) -> str:
    mean, low, high = about.skill
    return (
        f"On the settings measured so far no signal from weights alone beats the rules of thumb (skill {mean:+.2f}, "
        f"{low:+.2f} to {high:+.2f}): score a few batches, or take one of the rules of thumb."
        if about.rule.endswith("powerlaw_alpha")
        else f"This evidence does not beat the rules of thumb on the settings measured so far (skill {mean:+.2f}, "
        f"{low:+.2f} to {high:+.2f}): take one of them, or fine-tune a pilot."
    )


def other_kind(kind: str, kinds: tuple[str, ...]) -> str:
    return f"Networks repaired by {kind!r} were not calibrated ({', '.join(kinds)} were): fine-tune a pilot and compare its scores yourself."  # fmt: skip


def other_ratio(ratio: float, ratios: tuple[float, float]) -> str:
    return f"Ratio {ratio:g} lies outside the calibrated {ratios[0]:g} to {ratios[1]:g}: take the nearest ratio inside as a hint, or fine-tune a pilot."  # fmt: skip


def other_number(number: int, checkpoints: tuple[int, int], longer: int) -> str:
    low, high = checkpoints[0], longer * checkpoints[1]
    what = "save more of them" if number < low else "name fewer of them, evenly spread"
    return f"{number} checkpoints are outside what was calibrated ({low} to {high}): {what}."


def other_score(shape: Shape, about: Level) -> str:
    low, high = about.scores
    return f"A score of {shape.last:.3g} is outside what was calibrated (percent right, {low:.0f} to {high:.0f}): let the score be percent right, or fine-tune a pilot."  # fmt: skip


def trivial_is_better(band: Band) -> str:
    return f"Where pruning leaves this little ({band.name}), the rule of thumb {band.trivial!r} lost less than this evidence ({band.trivial_regret:.1f} against {band.regret[0]:.1f} points): take it, or go one level up."  # fmt: skip


def still_moving(shape: Shape) -> str:
    return f"What pruning leaves right still rises at the last checkpoint (by {shape.rise:.1f} % since the one before): train on and ask again; if you cannot, prune the last one."  # fmt: skip


def flat(shape: Shape) -> str:
    return f"The signal is flat: it ranges over {shape.peak - shape.low:.1f} % with a noise of {shape.noise:.1f} %, which tells no checkpoints apart. Fine-tune a pilot, or take the final checkpoint."  # fmt: skip


def noisy(shape: Shape) -> str:
    return f"The signal's peak ({shape.peak - shape.elsewhere:.1f} % above the other checkpoints) is smaller than its noise ({shape.noise:.1f} %): score more batches, or fine-tune a pilot."  # fmt: skip


def _next(story: Story, following: Level | None, what: str) -> str:
    if following is None:
        return "Fine-tuning a few checkpoints at this ratio and comparing their scores."
    band = None if story.band is None else next((b for b in following.bands if b.name == story.band.name), None)
    if band is None or story.band is None:
        losses = [(b.regret[0], b.pairs) for b in following.bands]
        mean = sum(regret * pairs for regret, pairs in losses) / max(1, sum(pairs for _, pairs in losses))
        return f"Next: {what}; the mean regret of that is {mean:.1f} points over all ratios, at {following.cost:.0%} of the grid's fine-tuning."  # fmt: skip
    return f"Next: {what}; in such cases its mean regret is {band.regret[0]:.1f} instead of {story.band.regret[0]:.1f} points, at {following.cost:.0%} of the grid's fine-tuning."  # fmt: skip


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
