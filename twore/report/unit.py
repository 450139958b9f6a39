"""What the numbers of a diagram are: points of a score, or a loss in nats, which is a score upside down.

All choices (the best epoch, the line between regimes) are made on scores, higher is better. A unit only says how a
score is shown: as 26.1 points, or as 0.261 nats where a point is 0.01 nat and less is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.colors import Normalize


@dataclass(frozen=True)
class Unit:
    """How scores are shown."""

    label: str = "score"
    """Of axes and colour bars, with the unit."""
    below: str = ""
    """The same for the distance to the best of a row; from the label unless given."""
    name: str = "point"
    """Of one, in sentences."""
    point: float = 1.0
    """What a point of score is; below 0: less is better."""
    decimals: int | None = None
    """Of numbers; none: one, and two where all are small."""

    @property
    def distance(self) -> str:
        """The label of a diagram in which each row has its best taken away."""
        return self.below or f"{self.label} minus best of the row"

    @property
    def less_is_better(self) -> bool:
        """A loss."""
        return self.point < 0

    def shown(self, grid: pd.DataFrame) -> pd.DataFrame:
        """Scores in this unit, (R, E)."""
        return grid * self.point

    def scale(self, norm: Normalize) -> Normalize:
        """A colour scale of scores in this unit."""
        low, high = sorted((float(norm.vmin or 0.0) * self.point, float(norm.vmax or 0.0) * self.point))
        return Normalize(low, high)

    def colours(self, name: str) -> str:
        """The colour map in which the best has the same colour as for scores."""
        return f"{name}_r" if self.less_is_better else name

    def number(self, points: float) -> str:
        """A size without its sign: 9.6, 0.35 or, in nats, 0.261."""
        value = abs(points * self.point)
        if self.decimals is not None:
            return f"{value:.{self.decimals}f}"
        return f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"

    def amount(self, points: float) -> str:
        """A size with its unit: 9.6 points, 0.261 nats."""
        text = self.number(points)
        return f"{text} {self.name}{'' if text == '1.0' else 's'}"

    def side(self, gain: float) -> str:
        """Where something is whose score is `gain` higher than another's."""
        return "above" if (gain >= 0) != self.less_is_better else "below"

    def worse(self, points: float) -> str:
        """In words, worse by so much: 0.5 points lower, 0.005 nats higher."""
        return f"{abs(points * self.point):g} {self.name}s {'higher' if self.less_is_better else 'lower'}"


POINTS = Unit()
NATS = Unit(label="loss (nats a token)", below="loss minus the row's best (nats)", name="nat", point=-0.01, decimals=3)
