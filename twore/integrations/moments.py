"""Moments of a training: an update (500), or an epoch in words ("2 epochs", "1.5 epochs"), as `advise` names them."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORDS = r"(\d+(?:\.\d+)?)\s*epochs?"
NEAR = 1e-9  # epochs: a trainer counts them in fractions


@dataclass(frozen=True)
class Moment:
    """After so many updates, or so many epochs."""

    number: float
    unit: str  # "step" or "epoch"

    def reached(self, step: int, epoch: float) -> bool:
        """Whether a run that has done `step` updates, `epoch` epochs, is there or beyond."""
        return step >= self.number if self.unit == "step" else epoch >= self.number - NEAR

    def beyond(self, steps: int, epochs: float) -> bool:
        """Whether a run of so many updates and epochs ends before it."""
        return self.number > steps if self.unit == "step" else self.number > epochs + NEAR

    def __str__(self) -> str:
        return f"step {self.number:.0f}" if self.unit == "step" else f"epoch {self.number:g}"


def moment(option: str, value: int | str) -> Moment:
    """The Moment of 500 or "2 epochs". ValueError, with the option's name, for anything else and for 0."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Moment(value, "step")
    found = re.fullmatch(WORDS, value.strip()) if isinstance(value, str) else None
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{option} is an update, such as 500, or epochs in words, such as '2 epochs': got {value!r}")
    return Moment(float(found[1]), "epoch")
