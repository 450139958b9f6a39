"""Measuring how fast this machine trains a study's models, so that a plan's hours need no assumption.

For each distinct model and batch size a few updates of the real training loop are timed, on the study's data where
they can be had, else on random inputs of the right shape. It takes under a minute unless a single update takes seconds.
Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from platform import node
from typing import Any

import torch
from torch import Tensor, nn

from twore.data import DataError
from twore.seeds import seed_everything
from twore.study.cost import TRAINING, Pace, size_of
from twore.study.specs import Study
from twore.study.trial import FirstBatches
from twore.tasks.base import TaskData
from twore.training import Numerics, Run, Training, train
from twore.training.numerics import fastest, resolve, use_threads

BUDGET = 1.0  # seconds of updates a timed repetition aims at; our choice: timing noise of a few percent
ALL_SECONDS = 40.0  # for all models together; our choice, so that reading the data still fits in a minute
MOST_UPDATES = 40
REPEATS = 2  # timed repetitions after one that is not counted; the fastest counts


class Calibration:
    """Measured paces of a study's settings; an instance is a PaceOf for `twore.study.cost.estimate`.

    `source` says what was measured. ValueError for a device that is not here; DataError when the data cannot be had and
    the task does not say the shape of its examples.
    """

    def __init__(self, study: Study, folder: Path | None) -> None:
        self._folder, self._loaded = folder, _Loaded()
        self._known: dict[Any, float] = {}  # seconds measured so far
        first = study.trajectories[0].study
        runs = [(t.study, spec) for t in study.trajectories for spec in (t.study.dense, t.study.finetune)]
        kinds = len({_kind(setting, spec) for setting, spec in runs})
        self._budget = min(BUDGET, ALL_SECONDS / kinds / (REPEATS + 1))
        device = resolve(replace(study.numerics, precision="float32")).device
        self._device = torch.device(device)
        self.numerics = resolve(study.numerics, lambda trial: self._seconds(first, first.finetune, trial))

    @property
    def source(self) -> str:
        """What was measured, on what, where."""
        numerics = self.numerics
        threads = f"{numerics.threads} thread{'s' if numerics.threads > 1 else ''} a worker"
        return (
            f"training updates measured here ({node()}, {numerics.device}, {numerics.precision}, {threads}, "
            f"on {'random inputs' if self._loaded.random else 'the data'}, one worker at a time)"
        )

    def __call__(self, setting: Study, spec: Training) -> Pace:
        """The pace of one of a setting's two runs."""
        size, seconds = size_of(setting.task), self._seconds(setting, spec, self.numerics)
        per_batch = spec.batch_size / size.example_size  # examples
        if size.train is not None and size.evaluated is not None:
            example = seconds / per_batch / TRAINING
            batches = spec.batches_of(-(-size.train * size.example_size // spec.batch_size))
            return Pace(seconds, batches, size.evaluated * example, size.train * example)
        data = self._loaded.of(setting.task, self._folder, self._device)
        batches = data.updates(spec.batch_size)
        reading = batches * seconds / TRAINING
        return Pace(seconds, spec.batches_of(batches), self._evaluation(setting, data), reading)

    def _seconds(self, setting: Study, spec: Training, numerics: Numerics) -> float:
        """Of one training batch; measured once for equal models and batches."""
        key = (_kind(setting, spec), numerics.precision)
        if key not in self._known:
            data = self._loaded.of(setting.task, self._folder, self._device)
            self._known[key] = _batch_seconds(setting, spec, data, numerics, self._budget)
        return self._known[key]

    def _evaluation(self, setting: Study, data: TaskData) -> float:
        """Seconds of one evaluation, timed once: the task does not say how many examples it scores."""
        key = ("evaluation", setting.task)
        if key not in self._known:
            model = setting.task.build().to(self._device).eval()
            with torch.inference_mode(), self.numerics.autocast():
                start = time.perf_counter()
                for split in data.splits:
                    data.evaluate(model, split)
            self._known[key] = time.perf_counter() - start
        return self._known[key]


@dataclass
class _Loaded:
    """The data of the task asked for last, or random inputs in their place."""

    task: Any = None
    data: Any = None
    random: bool = False

    def of(self, task: Any, folder: Path | None, device: torch.device) -> Any:
        if self.task != task:
            try:
                self.data = task.load(folder, device)
            except DataError:
                if not hasattr(task, "example_inputs"):
                    raise
                self.data, self.random = _RandomInputs(task, device), True
            self.task = task
        return self.data


def _kind(setting: Study, spec: Training) -> tuple[Any, ...]:
    """Runs of equal kind take equally long a batch."""
    size = size_of(setting.task)
    model = (size.forward, size.weights, size.bytes) if size.forward else setting.task
    return model, spec.batch_size, spec.optimizer


def _batch_seconds(setting: Study, spec: Training, data: TaskData, numerics: Numerics, budget: float) -> float:
    threads = torch.get_num_threads()
    use_threads(numerics.threads)
    seed_everything(0)
    model = setting.task.build().to(numerics.device)
    still = replace(spec, epochs=1, lr=0.0)  # the work of training, and no way to diverge

    def updates(count: int) -> float:
        run = Run(model, FirstBatches(data, count), still, "calibrate", 0, numerics)
        start = time.perf_counter()
        train(run)
        return time.perf_counter() - start

    try:
        updates(1)  # the first one also allocates
        count = max(1, min(MOST_UPDATES, data.updates(spec.batch_size) - 1, int(budget / updates(1))))
        return fastest(lambda: updates(count), repeats=REPEATS) / count
    finally:
        torch.set_num_threads(threads)


class _RandomInputs:
    """Stands in for a task's data: batches of one random example, repeated, and a loss that uses every output."""

    splits: tuple[str, ...] = ()

    def __init__(self, task: Any, device: torch.device) -> None:
        inputs = task.example_inputs()
        self._inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self._size, self._device = getattr(task, "example_size", 1), device

    def updates(self, batch_size: int) -> int:
        return MOST_UPDATES + 1

    def epoch(self, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        count = max(1, batch_size // self._size)
        for _ in range(self.updates(batch_size)):
            yield tuple(self._batch(x, count) for x in self._inputs)

    def loss(self, model: nn.Module, batch: tuple[Any, ...]) -> tuple[Tensor, int]:
        output = model(*batch)
        first = output if isinstance(output, Tensor) else output[0]  # transformers' models give tuples
        return first.float().square().sum(), len(batch[0])

    def _batch(self, x: Any, count: int) -> Any:
        if not isinstance(x, Tensor):
            return x
        x = x.expand(count, *x.shape[1:]).to(self._device)
        return torch.randn_like(x) if x.is_floating_point() else x.contiguous()
