"""From the tables of one setting to a verdict for each ratio: which checkpoint, how sure, or why no answer.

The checkpoint is always the scoreboard predictor's of that level (`levels.py`). What is added here is how far to trust
it: a calibrated confidence, and abstention where trust has no ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from twore.advise import wording
from twore.advise.calibration import Band, Calibration, Level
from twore.advise.levels import all_checkpoints, cells_of, check_level, rule_of, trivial_picks, unscored
from twore.advise.shape import Shape, noise_range, shapes
from twore.advise.wording import Doubt, Following
from twore.analysis.boundary import LABELS
from twore.analysis.grid import RATIO_TOLERANCE, mean_grid
from twore.analysis.rules import axes
from twore.analysis.settings import SettingTables

RISING = 1.0  # percent: a signal that gains more between the last two checkpoints, beyond its noise, still moves; ours
SHORTER = 2  # times fewer checkpoints than calibrated are answered too: measured, advise-calibration.md
OVER = 1.25  # times the unpruned score: a pruned network does not score more than that; our choice
SHARE = 1.0  # an unpruned score up to this is a share of 1, no percentage: points would be read as hundredths; ours
MIN_GAIN = 0.5  # points over the final checkpoint from which stopping early pays, as `regime_boundary`
CLEAR = 1.0  # points by which a pilot's pick has to beat the final checkpoint to say so; our choice


@dataclass(frozen=True)
class Verdict:
    """What to prune at one ratio.

    epoch: the checkpoint's position on the time axis, also where `abstained` (then what the level would say, without a
        claim); None when nothing can be named
    interval: positions between which the best checkpoint lies, with the share `Band.coverage` of the calibration
    confidence: that `epoch` lies in the tie set of the best checkpoint, in [0, 1], rather too low than too high: the
        20 % quantile over the settings of the calibration; 0 where nothing is known: outside it, or no clear signal
    reason, would_change: plain sentences
    regime: "stop early", "either" or "train on"; None where the level cannot tell
    trivial_rules: rule of thumb -> position
    expected_regret: mean and 90 % range on the calibration settings, points; None where nothing is known
    settings: independent settings (clusters) behind confidence and expected_regret
    doubt: why it abstained, in a word or two ("no skill", "outside", "flat", ...); None for an answer
    """

    ratio: float
    epoch: float | None
    interval: tuple[float, float]
    confidence: float
    abstained: bool
    reason: str
    would_change: str
    regime: str | None
    trivial_rules: dict[str, float]
    expected_regret: tuple[float, float, float] | None
    settings: int
    doubt: str | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """What a level sees of one setting, by ratio: all that a verdict rests on beside the calibration.

    picks: the rule's, without ratios that have none; shapes: of the signal, likewise; trivial: rule of thumb -> epoch
    gains: of a pilot, score of the pick minus that of the final checkpoint, points; NaN where that was not fine-tuned
    unscored: of a pilot, how many of its cells have no score
    span: first and last epoch
    """

    level: str
    k: int | None
    ratios: tuple[float, ...]
    picks: dict[float, float]
    shapes: dict[float, Shape]
    trivial: dict[float, dict[str, float]]
    gains: dict[float, float]
    unscored: dict[float, int]
    span: tuple[float, float]


def decide(
    setting: SettingTables, *, level: str, calibration: Calibration, k: int | None = None, kind: str | None = None
) -> list[Verdict]:
    """A verdict for each ratio of the setting's results, ascending.

    setting: at "weights" and "batches" the results hold the asked (ratio, epoch) grid, scores are not read; at "pilot"
        the fine-tuned cells of one fine-tune seed, `score` the score to choose on, and probes of every checkpoint.
        Probes of the final checkpoint at ratio 0 (the dense network) say what pruning took away; see `shape.unpruned`.
    k: cells a ratio of the pilot. kind: how the pruned network was repaired before it was scored, "batchnorm" or
        "outputs"; None: not known, not checked.

    ValueError for an unknown level, or as the level's predictor raises.
    """
    return conclude(see(setting, level=level, k=k), calibration, kind=kind)


def see(setting: SettingTables, *, level: str, k: int | None = None, batches: Seen | None = None) -> Seen:
    """What a level sees of a setting; arguments as `decide`.

    batches: what the level "batches" saw of the same checkpoints, for a pilot: saves looking twice.
    """
    check_level(level)
    everywhere = all_checkpoints(setting)
    ratios, epochs = axes(everywhere)
    chosen = rule_of(level, k).pick(setting) or {}
    picks = {ratio: float(epoch) for ratio, epoch in chosen.items() if np.ndim(epoch) == 0}  # type: ignore[arg-type]
    return Seen(
        level=level,
        k=k,
        ratios=tuple(float(ratio) for ratio in ratios),
        picks=picks,
        shapes=shapes(setting, level) if batches is None else batches.shapes,
        trivial=trivial_picks(everywhere) if batches is None else batches.trivial,
        gains=_gains(setting, picks, float(epochs[-1])) if level == "pilot" else {},
        unscored=unscored(setting, k) if level == "pilot" else {},
        span=(float(epochs[0]), float(epochs[-1])),
    )


def conclude(seen: Seen, calibration: Calibration, *, kind: str | None = None) -> list[Verdict]:
    """The verdicts of what was seen, ratios ascending; kind as in `decide`."""
    calibration = calibration.of_kind(kind)
    about = calibration.level(seen.level, seen.k)
    verdicts = []
    for ratio in seen.ratios:
        shape, epoch = seen.shapes.get(ratio), seen.picks.get(ratio)
        band = None if about is None or shape is None else about.band_of(shape.kept)
        doubt = _outside(shape, about, calibration.kinds, level=seen.level, kind=kind)
        outside = doubt is not None and doubt.short == wording.OUTSIDE
        if outside:
            band = None  # its numbers are of other cases: none is stated, not even beside "no answer"
        interval = _interval(shape, band, epoch, seen.span)
        if shape is not None and (doubt is None or seen.level != "weights"):
            flaw = wording.unfinished(seen.unscored.get(ratio, 0), epoch)
            if flaw is None and epoch is not None:
                flaw = unclear(shape, epoch, seen.level)
            doubt = doubt or flaw
            band = band if flaw is None else None  # its numbers are of clear signals, but for weights
        lead = seen.gains.get(ratio, np.nan)
        story = wording.Story(ratio, seen.level, seen.k, epoch, shape, about, band, lead)
        following = None if outside else _following(seen, shape, calibration, kind)
        verdicts.append(
            Verdict(
                ratio=ratio,
                epoch=epoch,
                interval=interval,
                confidence=0.0 if band is None or epoch is None else band.confidence,
                abstained=doubt is not None,
                reason=wording.why(story) if doubt is None else doubt.reason,
                would_change=wording.would_change(story, following),
                regime=None if outside else _regime(seen, ratio, shape, about),
                trivial_rules=seen.trivial[ratio],
                expected_regret=None if band is None else band.regret,
                settings=0 if band is None else band.clusters,
                doubt=None if doubt is None else doubt.short,
            )
        )
    return verdicts


def _following(seen: Seen, shape: Shape | None, calibration: Calibration, kind: str | None) -> Following:
    """The next level of evidence, and whether it would answer at a shape's ratio."""
    level, k, batches = "pilot", cells_of(seen.k), calibration.level("batches")
    if seen.level == "weights" and batches is not None and batches.has_skill:
        level = "batches"
    elif seen.level == "pilot":
        k = next((number for number in calibration.pilots() if number > k), 0)
    about = calibration.level(level, k) if k else None
    scored = seen.level != "weights"
    return Following(level, k, about, _outside(shape, about, calibration.kinds, level=level, kind=kind, scored=scored))


def _outside(
    shape: Shape | None, about: Level | None, kinds: tuple[str, ...], *, level: str, kind: str | None,
    scored: bool = True,
) -> Doubt | None:  # fmt: skip
    """Why the calibration of a level says nothing for an answer here, and what to do then; None when it does.

    scored: whether the shape is that of a pruned score, which tells what pruning leaves; else there need be none.
    """
    if about is None:
        return wording.not_calibrated(level)
    if level != "weights" and kind is not None and kind not in kinds:
        return wording.other_kind(kind, kinds, level)
    if shape is None:
        return wording.no_signal(level) if scored else None
    number = len(shape.epochs)
    if number < 2:
        return wording.one_checkpoint()
    if not about.has_skill:
        return wording.no_skill(level, about)
    if not about.ratios[0] - RATIO_TOLERANCE <= shape.ratio <= about.ratios[1] + RATIO_TOLERANCE:
        return wording.other_ratio(shape.ratio, about.ratios, level)
    fewest, most = ceil(about.checkpoints[0] / SHORTER), about.checkpoints[1]  # more: too much may be stated
    if not fewest <= number <= most:
        return wording.other_number(number, fewest, most)
    if not scored:
        return None
    if shape.low < 0 or shape.whole <= SHARE or not shape.peak <= OVER * shape.whole:
        return wording.other_score(shape)
    band = about.band_of(shape.kept)
    if band is None:
        return wording.no_band(shape, level)
    return None if about.answers(band) else wording.trivial_is_better(band)


def unclear(shape: Shape, epoch: float, level: str) -> Doubt | None:
    """Why the signal itself is no ground for an answer; None when it is. What a pilot fine-tuned speaks for itself,
    unless its answer is the final checkpoint and the signal still rises."""
    noise, final = 0.0 if np.isnan(shape.noise) else shape.noise, epoch == shape.epochs[-1]
    if final and shape.at == len(shape.epochs) - 1 and shape.rise > max(RISING, noise):
        return wording.still_moving(shape)
    if level == "pilot":
        return None
    if shape.peak - shape.low <= noise_range(len(shape.epochs)) * noise:  # no more than noise alone would range
        return wording.flat(shape)
    return wording.noisy(shape) if not final and shape.peak - shape.elsewhere < noise else None


def _interval(
    shape: Shape | None, band: Band | None, epoch: float | None, span: tuple[float, float]
) -> tuple[float, float]:
    """Where the signal is near its peak, stretched to the pick; everything where nothing is known."""
    if shape is None or band is None:
        return span
    low, high = shape.near(band.width)
    return (low, high) if epoch is None else (min(low, epoch), max(high, epoch))


def _regime(seen: Seen, ratio: float, shape: Shape | None, about: Level | None) -> str | None:
    """By what the final checkpoint keeps when pruned; a pilot's gain decides what that leaves open or contradicts.

    One seed's gain of the best of a few cells is too large by its choice, so it has to be clear: CLEAR points.
    """
    if shape is None or about is None or about.stop_below is None or about.train_from is None:
        return None
    early, either, late = LABELS
    label = early if shape.kept < about.stop_below else late if shape.kept >= about.train_from else either
    gain = seen.gains.get(ratio, np.nan)
    if np.isnan(gain):
        return label
    if gain >= CLEAR and label != late:
        return early
    return late if gain < MIN_GAIN and label != early else either


def _gains(setting: SettingTables, picks: dict[float, float], final: float) -> dict[float, float]:
    """Score of the pick minus that of the final checkpoint, by ratio; NaN where that was not fine-tuned."""
    grid = mean_grid(setting.results)
    if final not in grid.columns:
        return {}
    rows = {ratio: int(np.argmin(np.abs(grid.index.to_numpy(float) - ratio))) for ratio in picks}
    return {ratio: float(grid.iloc[i][picks[ratio]] - grid.iloc[i][final]) for ratio, i in rows.items()}
