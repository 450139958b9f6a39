"""From the tables of one setting to a verdict for each ratio: which checkpoint, how sure, or why no answer.

The checkpoint is always the scoreboard predictor's of that level (`levels.py`). What is added here is how far to trust
it: a calibrated confidence, and abstention where trust has no ground (`doubt`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twore.advise import wording
from twore.advise.calibration import Band, Calibration, Level
from twore.advise.levels import all_checkpoints, check_level, rule_of, trivial_picks
from twore.advise.shape import Shape, shapes
from twore.analysis.grid import RATIO_TOLERANCE, mean_grid
from twore.analysis.rules import axes
from twore.analysis.settings import SettingTables

WORTH = 0.1  # points: a rule of thumb has to lose this much less than the evidence before it is preferred; our choice
FLAT = 2.0  # times its noise: a signal that ranges over less tells no checkpoints apart; our choice
RISING = 1.0  # percent: a signal that gains more between the last two checkpoints, beyond its noise, still moves; ours
LONGER = 2  # times more checkpoints than calibrated are still answered: a finer grid of the same kind; our choice
MIN_GAIN = 0.5  # points over the final checkpoint from which stopping early pays, as `regime_boundary`


@dataclass(frozen=True)
class Verdict:
    """What to prune at one ratio.

    epoch: the checkpoint's position on the time axis, also where `abstained` (then what the level would say, without a
        claim); None when nothing can be named
    interval: positions between which the best checkpoint lies, with the share `Level.coverage` of the calibration
    confidence: that `epoch` lies in the tie set of the best checkpoint, in [0, 1], rather too low than too high: the
        10 % quantile over the settings of the calibration; 0 where nothing is known
    reason, would_change: plain sentences. regime: "stop early", "either" or "train on"; None where the level cannot tell
    trivial_rules: rule of thumb -> position
    expected_regret: mean and 90 % range on the calibration settings, points; None where nothing is known
    settings: independent settings (clusters) behind confidence and expected_regret
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


def decide(
    setting: SettingTables, *, level: str, calibration: Calibration, k: int | None = None, kind: str | None = None
) -> list[Verdict]:
    """A verdict for each ratio of the setting's results, ascending.

    setting: at "weights" and "batches" the results hold the asked (ratio, epoch) grid, scores are not read; at "pilot"
        the fine-tuned cells of one fine-tune seed, `score` the score to choose on, and probes of every checkpoint.
    k: cells a ratio of the pilot. kind: how the pruned network was repaired before it was scored, "batchnorm" or
        "outputs"; None: not known, not checked.

    ValueError for an unknown level, or as the level's predictor raises.
    """
    check_level(level)
    ratios, _ = axes(setting)
    whole = all_checkpoints(setting)
    picks = rule_of(level, k).pick(setting) or {}
    known, trivial = shapes(setting, level), trivial_picks(whole)
    about = calibration.level(level, k)
    verdicts = []
    for ratio in (float(ratio) for ratio in ratios):
        shape, pick = known.get(ratio), picks.get(ratio)
        epoch = None if pick is None or np.ndim(pick) else float(pick)  # type: ignore[arg-type]
        band = None if about is None or shape is None else about.band_of(shape.last)
        epochs = axes(whole)[1]
        interval = (float(epochs[0]), float(epochs[-1]))
        if shape is not None and about is not None:
            near = shape.near(about.width)
            interval = near if epoch is None else (min(near[0], epoch), max(near[1], epoch))
        doubt = doubts(shape, about, band, calibration.kinds, level=level, kind=kind)
        if epoch is None and doubt is None:
            doubt = wording.no_pick()
        story = wording.Story(ratio, level, epoch, shape, about, band, trivial[ratio])
        verdicts.append(
            Verdict(
                ratio=ratio,
                epoch=epoch,
                interval=interval,
                confidence=0.0 if band is None or epoch is None else band.confidence,
                abstained=doubt is not None,
                reason=doubt or wording.why(story),
                would_change=wording.would_change(story, calibration, k),
                regime=_regime(setting, ratio, shape, about, level),
                trivial_rules=trivial[ratio],
                expected_regret=None if band is None else band.regret,
                settings=0 if band is None else band.clusters,
            )
        )
    return verdicts


def doubts(
    shape: Shape | None, about: Level | None, band: Band | None, kinds: tuple[str, ...], *, level: str, kind: str | None
) -> str | None:
    """Why not to answer, and what to do then, in plain sentences; None when nothing speaks against an answer."""
    if about is None:
        return wording.not_calibrated(level)
    if shape is None:
        return wording.no_signal(level)
    number = len(shape.epochs)
    if number < 2:
        return wording.one_checkpoint()
    if about.skill[1] <= 0:
        return wording.no_skill(about)
    if kind is not None and kind not in kinds:
        return wording.other_kind(kind, kinds)
    if not about.ratios[0] - RATIO_TOLERANCE <= shape.ratio <= about.ratios[1] + RATIO_TOLERANCE:
        return wording.other_ratio(shape.ratio, about.ratios)
    if not about.checkpoints[0] <= number <= LONGER * about.checkpoints[1]:
        return wording.other_number(number, about.checkpoints, LONGER)
    if band is None or not 0 <= shape.low <= shape.peak <= 100:
        return wording.other_score(shape, about)
    if band.regret[0] > band.trivial_regret + WORTH:
        return wording.trivial_is_better(band)
    noise = 0.0 if np.isnan(shape.noise) else shape.noise
    if shape.at == number - 1 and shape.rise > max(RISING, noise):
        return wording.still_moving(shape)
    if shape.peak - shape.low <= FLAT * noise or shape.peak == shape.low:
        return wording.flat(shape)
    if shape.at < number - 1 and shape.peak - shape.elsewhere < noise:
        return wording.noisy(shape)
    return None


def _regime(setting: SettingTables, ratio: float, shape: Shape | None, about: Level | None, level: str) -> str | None:
    """By the pilot's own scores where there are some, else by what pruning left of the final checkpoint."""
    if level == "weights" or shape is None or about is None:
        return None
    if level == "pilot":
        grid = mean_grid(setting.results)
        row = grid.iloc[int(np.argmin(np.abs(grid.index.to_numpy(float) - ratio)))]
        gain = float(row.max() - row.iloc[-1])  # NaN where the final checkpoint was not fine-tuned
        if np.isfinite(gain):
            return "stop early" if gain >= MIN_GAIN else "either" if gain > 0 else "train on"
    if about.stop_below is None or about.train_from is None:
        return None
    return "stop early" if shape.last < about.stop_below else "train on" if shape.last >= about.train_from else "either"
