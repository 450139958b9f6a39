"""What a domain must provide: a Task (a frozen, comparable value, cheap) and its data once loaded (TaskData).

A user's own work enters here: any frozen dataclass with these methods is a task. All its fields are part of a result's
identity. Study files name it by its import path (module:Class), or by a class variable `kind` of that form.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = Any


@runtime_checkable
class TaskData(Protocol):
    """A task's data in memory, on one device.

    It may also keep examples for people to read: with both of these a study writes samples.csv.
        samples(model) -> list[str]         what the model makes of a few fixed inputs
        describe()["samples"]               a list of {"input", "reference"}, in the same order
    With this, pruned checkpoints are scored before they are fine-tuned (probes.csv):
        targets(batch) -> Tensor            the right class of each row of `outputs`, (N,) int64
    """

    fingerprint: str
    """What the data are: equal fingerprints, equal contents."""
    splits: tuple[str, ...]
    """Where `evaluate` works: ("test",) or ("valid", "test")."""

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch."""

    def epoch(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """The training set once, shuffled and augmented as `seed` says."""

    def plain(self) -> Iterator[Batch]:
        """The training set once, in fixed order, not augmented."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """The training loss summed over the batch's examples (or tokens), and their number."""

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Predicted probabilities, (N, C) float32, a row an example (or target token, padding excluded)."""

    def evaluate(self, model: nn.Module, split: str) -> dict[str, Any]:
        """Scores of the model on a split: "score" (higher is better), any others, and words such as how it was scored.

        The model is in eval mode. Splits are "test", "valid" and any others, whose names then prefix the columns.
        """

    def describe(self) -> dict[str, Any]:
        """What was loaded, for provenance: where from, how many examples, which indices."""


@runtime_checkable
class Task(Protocol):
    """One task configuration.

    A task may also say how much work it is, so that a plan can estimate hours before any data is there; without both
    methods a plan counts jobs and disk only, until --calibrate measures:
        example_inputs() -> Tensor | tuple      what the model is called with for one example: a batch of one
        example_counts() -> Mapping[str, int]   examples: "train", and each split that `evaluate` scores
        plain_version: int                      raised when `plain` gives other batches: pair metrics are then redone
        example_size: int                       what one example takes up of Training.batch_size; 1 unless given
    And how its dense runs may be trained:
        equal_batches: bool     False: a batch's shape depends on the seed, so that dense runs cannot be trained in one
                                stack (numerics.dense_stack), which a study then refuses; True unless given
    """

    score_label: ClassVar[str]
    """What a score is, with its unit, for axes: "test accuracy (%)"."""
    setting_fields: ClassVar[tuple[str, ...]]
    """Fields that always stand as columns in the tables."""

    def known_fingerprint(self) -> str | None:
        """The data's fingerprint where it is known without the data, else None."""

    def load(self, folder: Path | None, device: torch.device) -> TaskData:
        """Read the data. folder: where the user keeps data sets, or None."""

    def build(self) -> nn.Module:
        """The model at initialisation, drawn from torch's global generator."""
