"""A checkpoint's prunable layers, one at a time in memory, and whether all checkpoints have the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twore.advise.finding import Found
from twore.checkpoints import Checkpoint, CheckpointError, Layer, LayerChoice, Layers, find_layers, open_checkpoint


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose headers were read. `layers` are what would be pruned."""

    found: Found
    checkpoint: Checkpoint
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]  # what was left dense, and why

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Layer name -> shape."""
        return {layer.name: layer.shape for layer in self.layers}

    def weights(self) -> Mapping[str, Tensor]:
        """Layer name -> weight, read from the file each time it is asked for. CheckpointError for NaN or inf."""
        return FiniteWeights(self)

    def read(self, layer: Layer) -> Tensor:
        """One weight in its stored dtype. CheckpointError for NaN or inf."""
        weight = self.checkpoint.read(layer.source)
        if not _is_finite(weight):
            raise CheckpointError(
                f"{self.found.path}: {layer.name} holds NaN or inf, so its training had diverged there: "
                "leave this checkpoint out"
            )
        return weight


@dataclass(frozen=True)
class FiniteWeights(Mapping[str, Tensor]):
    """The layers of a checkpoint as a mapping that keeps nothing in memory."""

    opened: Opened

    def __getitem__(self, name: str) -> Tensor:
        return self.opened.read(next(layer for layer in self.opened.layers if layer.name == name))

    def __iter__(self) -> Iterator[str]:
        return (layer.name for layer in self.opened.layers)

    def __len__(self) -> int:
        return len(self.opened.layers)


Tell = Callable[[Checkpoint], tuple[Layer, ...] | None]


def open_run(found: tuple[Found, ...], choice: LayerChoice, tell: Tell | None = None) -> list[Opened]:
    """Open every checkpoint. CheckpointError when one cannot be read, or has other layers than the first.

    tell: the layers of a checkpoint by a model at hand, None where its names are others; then `choice` tells them.
    """
    opened = [open_one(one, choice, tell) for one in found]
    first = opened[0]
    for other in opened[1:]:
        if other.shapes != first.shapes:
            raise CheckpointError(
                f"{other.found.path} is not the model of {first.found.path} ({_difference(first, other)}): "
                "name the checkpoints of one training run"
            )
    return opened


def open_one(found: Found, choice: LayerChoice, tell: Tell | None = None) -> Opened:
    """Open one checkpoint and find its layers; by names and shapes where its class cannot be built here."""
    checkpoint = open_checkpoint(found.path)
    told = tell(checkpoint) if tell else None
    if told:
        return Opened(found, checkpoint, told, ())
    try:
        layers = find_layers(checkpoint, choice)
    except (CheckpointError, ImportError) as error:
        if choice.by != "auto" or checkpoint.config() is None:
            raise
        by_names = find_layers(checkpoint, replace(choice, by="names"))
        note = f"layers are told by names and shapes, since their class cannot be built here: {error}"
        layers = Layers(by_names.chosen, (note, *by_names.notes))
    return Opened(found, checkpoint, layers.chosen, layers.notes)


def _difference(first: Opened, other: Opened) -> str:
    a, b = first.shapes, other.shapes
    for name in [*a, *b]:
        if name not in b:
            return f"it has no {name}"
        if name not in a:
            return f"it has {name} besides"
        if a[name] != b[name]:
            return f"{name} is {b[name]}, there {a[name]}"
    return "its layers stand in another order"


def _is_finite(weight: Tensor) -> bool:
    """In blocks, so that no large tensor of truth values is made."""
    flat = weight.reshape(-1)
    if flat.element_size() == 1:
        flat = flat.float()
    return all(bool(torch.isfinite(block).all()) for block in flat.split(2**22))
