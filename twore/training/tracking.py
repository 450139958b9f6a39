"""Curves in TensorBoard, for those who want them: a point an epoch. Extra: `pip install 'twore[track]'`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twore.training.loop import Epoch


@contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[Epoch, dict[str, Any]], None]]:
    """A function that writes an epoch's record and scores as scalars under `folder`.

    ModuleNotFoundError with the way out when TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("TensorBoard is not installed: pip install 'twore[track]'") from error
    writer = SummaryWriter(str(folder))

    def track(record: Epoch, scores: dict[str, Any]) -> None:
        numbers = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
        values = {"train_loss": record.train_loss, "lr": record.lr, "rate": record.rate, **numbers}
        for name, value in values.items():
            writer.add_scalar(name, value, record.epoch)

    try:
        yield track
    finally:
        writer.close()
