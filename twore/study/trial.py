"""A few batches of a task's data, for measuring how long an update takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twore.tasks.base import TaskData


class FirstBatches:
    """The first batches of each epoch of some data; the rest of TaskData as it is."""

    def __init__(self, data: TaskData, count: int) -> None:
        self._data, self._count = data, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def updates(self, batch_size: int) -> int:
        """As many, or fewer when the epoch is shorter."""
        return min(self._count, self._data.updates(batch_size))

    def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
        """The first batches of the epoch."""
        return (batch for batch, _ in zip(self._data.epoch(batch_size, seed), range(self._count)))
