"""Random choices that are the same on every platform and Python release.

Only `random.Random.random` keeps its stream across Python releases (documentation of the module `random`); so every
choice below is made from it, with additions and divisions alone, and nothing iterates over a set or calls `hash`.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weighted(Generic[T]):
    """Items, each as likely as its weight says."""

    items: tuple[T, ...]
    cumulative: tuple[float, ...]


class Draw:
    """A stream of choices."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """True with this probability, in [0, 1]."""
        return self._random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each as likely."""
        return items[int(self._random() * len(items))]

    def weighted(self, choices: Weighted[T]) -> T:
        """One of the items."""
        cumulative = choices.cumulative
        place = bisect_right(cumulative, self._random() * cumulative[-1])
        return choices.items[min(place, len(cumulative) - 1)]


def weights(pairs: Iterable[tuple[T, float]]) -> Weighted[T]:
    """From (item, weight) pairs; `ValueError` when there is none."""
    pairs = [(item, weight) for item, weight in pairs if weight > 0]
    if not pairs:
        raise ValueError("nothing to choose from: give at least one item a positive weight")
    return Weighted(tuple(item for item, _ in pairs), tuple(accumulate(weight for _, weight in pairs)))


def zipf(items: Iterable[T]) -> Weighted[T]:
    """Weights that fall with the rank, like the words of a text.

    1 / ((rank + 4) (rank + 16)): between rank^-1 and rank^-2, flattened at the head (our choice): of fifty words the
    first has a seventh of the mass and the last about a three-hundredth.
    """
    return weights((item, zipf_weight(rank)) for rank, item in enumerate(items))


def zipf_weight(rank: int) -> float:
    return 1.0 / ((rank + 4) * (rank + 16))
