"""A task small enough to check by hand and fast enough to kill and resume many times: a two-layer net on blobs.

It is also what a user's own task looks like: a frozen dataclass outside the package.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twore.training import Numerics

FEATURES, CLASSES = 10, 3
CPU = Numerics(device="cpu", precision="float32")  # what tests compute with


@dataclass(frozen=True)
class ToyTask:
    score_label: ClassVar[str] = "accuracy (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ("hidden",)
    hidden: int = 8
    examples: int = 48
    pause: float = 0.0  # seconds an epoch, so that a test can kill something in the middle
    poison: int = -1  # the width at which the loss is not a number

    def known_fingerprint(self) -> str | None:
        return None

    def load(self, folder: Path | None, device: torch.device) -> ToyData:
        return ToyData(self, device)

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, self.hidden), nn.BatchNorm1d(self.hidden), nn.ReLU(), nn.Linear(self.hidden, CLASSES)
        )


class ToyData:
    def __init__(self, task: ToyTask, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(CLASSES, FEATURES, generator=generator)
        self.y = torch.arange(2 * task.examples) % CLASSES
        self.x = centres[self.y] + 0.8 * torch.randn(2 * task.examples, FEATURES, generator=generator)
        self.task, self.fingerprint, self.splits = task, f"toy-{task.examples}", ("valid", "test")

    def updates(self, batch_size: int) -> int:
        return -(-self.task.examples // batch_size)

    def epoch(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        time.sleep(self.task.pause)
        order = torch.randperm(self.task.examples, generator=torch.Generator().manual_seed(seed % 2**63))
        for index in order.split(batch_size):
            yield self.x[index], self.y[index]

    def plain(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.x[: self.task.examples], self.y[: self.task.examples]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        loss = F.cross_entropy(model(batch[0]), batch[1], reduction="sum")
        return loss * (float("nan") if self.task.hidden == self.task.poison else 1.0), len(batch[1])

    def outputs(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0]).float().softmax(1)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        part = slice(self.task.examples, None) if split == "test" else slice(0, self.task.examples, 2)
        return {"score": 100.0 * float((model(self.x[part]).argmax(1) == self.y[part]).double().mean())}

    def describe(self) -> dict[str, Any]:
        return {"source": "generated", "train": self.task.examples}
