"""How a study prunes. Every field is part of a result's identity."""

from __future__ import annotations

from dataclasses import dataclass

from twore.pruning.allocation import ALLOCATIONS
from twore.pruning.choices import unknown
from twore.pruning.schedules import SCHEDULES
from twore.pruning.scores import SCORES
from twore.pruning.weights import KINDS


@dataclass(frozen=True)
class Pruning:
    """One way to prune; the ratio itself is an axis of the grid."""

    kinds: tuple[str, ...] = ("conv", "linear")
    """Which weights: conv, linear."""
    include: tuple[str, ...] = ()
    """Name patterns that weights must match; empty means all of these kinds."""
    exclude: tuple[str, ...] = ()
    """Name patterns that are left dense."""
    score: str = "magnitude"
    """magnitude or random."""
    allocation: str = "uniform"
    """uniform (every tensor to the same ratio, as the report), global, erk or lamp."""
    schedule: str = "one_shot"
    """one_shot (as the report), iterative (rounds), or gradual (cubic) during fine-tuning."""
    rounds: int = 4
    """Steps of the iterative schedule."""
    ramp: float = 0.5
    """Share of fine-tuning over which iterative and gradual schedules prune, in (0, 1]."""
    recalibrate: int = 0
    """Batches on which BatchNorm statistics are re-estimated after pruning, before fine-tuning; 0 leaves them."""

    def __post_init__(self) -> None:
        for what, given, known in (("score", self.score, SCORES), ("allocation", self.allocation, ALLOCATIONS)):
            if given not in known:
                raise unknown(what, given, known)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds are one or more of {', '.join(KINDS)}: got {list(self.kinds)}")
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp is a share of fine-tuning in (0, 1]: got {self.ramp}")
        if self.rounds < 1:
            raise ValueError(f"rounds is at least 1: got {self.rounds}")
        if self.recalibrate < 0:
            raise ValueError(f"recalibrate is a number of batches, 0 or more: got {self.recalibrate}")
