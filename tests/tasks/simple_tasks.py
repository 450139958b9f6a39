"""Tasks made with twore.tasks.simple, in a module of their own: where study.yaml and worker processes find them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twore.tasks.simple import Learning, TensorData, labelled_data, split_rows


@dataclass(frozen=True)
class Blobs:
    """Points around three centres."""

    score_label: ClassVar[str] = "accuracy (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ("hidden",)
    hidden: int = 8

    def known_fingerprint(self) -> None:
        return None

    def load(self, folder: Path | None, device: torch.device) -> TensorData:
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(90) % 3
        x = torch.eye(10)[y] * 3 + torch.randn(90, 10, generator=generator)
        train, valid, test = split_rows((x, y), valid=0.2, test=0.3)
        return labelled_data(train, test, valid=valid, device=device)

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(10, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 3))


@dataclass(frozen=True)
class Tagger:
    """A class for each token, padding (-1) left out: a loss and a score of one's own."""

    score_label: ClassVar[str] = "tokens right (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ()

    def known_fingerprint(self) -> None:
        return None

    def load(self, folder: Path | None, device: torch.device) -> TensorData:
        words = torch.arange(60).reshape(12, 5) % 10  # (N, T)
        tags = torch.where(words == 0, -1, words % 2)
        rows = {"words": words, "tags": tags}
        return TensorData(rows, rows, device=device, learning=Learning(_loss, _outputs, _scores))

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(10, 12), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2))


def _tokens(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    wanted = batch["tags"] >= 0
    return model(batch["words"])[wanted], batch["tags"][wanted]  # (tokens, 2), (tokens,)


def _loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    logits, tags = _tokens(model, batch)
    return F.cross_entropy(logits, tags, reduction="sum"), len(tags)


def _outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return _tokens(model, batch)[0].softmax(1)


def _scores(model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> dict[str, Any]:
    right = torch.cat([(logits.argmax(1) == tags) for logits, tags in (_tokens(model, batch) for batch in batches)])
    return {"score": 100.0 * float(right.double().mean())}
