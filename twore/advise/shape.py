"""What a level's signal looks like along the checkpoints of one ratio: the numbers on which confidence and abstention
rest. Everything here a user can compute; nothing looks at a fine-tuned score.
Letters: R ratios, E epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from twore.advise.levels import all_checkpoints, rule_of
from twore.analysis.evaluation import blind
from twore.analysis.settings import SettingTables
from twore.analysis.spared import unpruned

SECOND_DIFFERENCE = 6.0  # variance of x[i-1] - 2 x[i] + x[i+1] over that of x, for independent errors: 1 + 4 + 1


@dataclass(frozen=True, eq=False)
class Shape:
    """The signal of one ratio, in its own unit, higher is better.

    ratio; epochs (E,) ascending, where the signal is known, the final one among them; signal (E,)
    noise: s.d. of one value about its neighbours, by second differences (so curvature counts as noise too); NaN with
        fewer than three checkpoints
    whole: the signal of the final checkpoint unpruned (see `unpruned`); NaN for a signal from weights
    """

    ratio: float
    epochs: np.ndarray
    signal: np.ndarray
    noise: float
    whole: float

    @property
    def at(self) -> int:
        """Index of the peak, the earliest of equals."""
        return int(np.argmax(self.signal))

    @property
    def peak(self) -> float:
        return float(self.signal.max())

    @property
    def low(self) -> float:
        return float(self.signal.min())

    @property
    def last(self) -> float:
        """At the final checkpoint."""
        return float(self.signal[-1])

    @property
    def rise(self) -> float:
        """From the last checkpoint but one to the last; 0 with one checkpoint."""
        return float(self.signal[-1] - self.signal[-2]) if len(self.signal) > 1 else 0.0

    @property
    def elsewhere(self) -> float:
        """Mean of the signal away from the peak and its two neighbours; the last value where nothing is left."""
        away = np.abs(np.arange(len(self.signal)) - self.at) > 1
        return float(self.signal[away].mean()) if away.any() else self.last

    @property
    def kept(self) -> float:
        """Share of the unpruned score that the final checkpoint keeps when pruned, about [0, 1]; NaN without one."""
        return self.last / self.whole if self.whole > 0 else float("nan")

    def near(self, width: float) -> tuple[float, float]:
        """First and last epoch whose signal is within `width` (a share of the signal's range) of the peak."""
        inside = np.flatnonzero(self.signal >= self.peak - width * (self.peak - self.low) - 1e-12)
        return float(self.epochs[inside[0]]), float(self.epochs[inside[-1]])


def shapes(setting: SettingTables, level: str) -> dict[float, Shape]:
    """The shape of each ratio; a ratio whose signal is missing at the final checkpoint has none.

    At "pilot" it is the signal of "batches", on all checkpoints that were probed.
    """
    everywhere = blind(all_checkpoints(setting))
    signal = rule_of("weights" if level == "weights" else "batches").signal
    grid = None if signal is None else signal(everywhere)
    if grid is None:
        return {}
    whole = float("nan") if level == "weights" else unpruned(setting)
    found = {}
    for i, ratio in enumerate(grid.index):
        values = grid.iloc[i].to_numpy(float)
        known = np.isfinite(values)
        if known[-1]:
            epochs, noise = grid.columns.to_numpy(float)[known], roughness(values[known])
            found[float(ratio)] = Shape(float(ratio), epochs, values[known], noise, whole)
    return found


def roughness(values: np.ndarray) -> float:
    """S.d. of the errors of single values, by second differences; NaN for fewer than three. (E,)"""
    if len(values) < 3:
        return float("nan")
    return float(np.sqrt(np.mean(np.diff(values, 2) ** 2) / SECOND_DIFFERENCE))


def noise_range(number: int) -> float:
    """Expected range of so many independent normal errors, in standard deviations: 1.128 for 2, 2.847 for 8.

    The mean of the largest minus the smallest is the integral of 1 - (1 - F)^n - F^n over the normal distribution F.
    """
    x = np.linspace(-8.0, 8.0, 1601)
    below = ndtr(x)
    return float(np.trapezoid(1 - (1 - below) ** number - below**number, x))
