"""What a study costs before it runs: hours and disk, from counted work. Needs neither data nor network.

    dense run = epochs x batches x batch + (epochs + 1) x evaluation
    cell      = fine-tune epochs x batches x batch + evaluation + one pass over the training set for the pair metrics
    batch     = 3 x examples of a batch x forward / rate + weights x overhead    backward costs two forward passes

forward is the model's multiply-adds for one example (twore.study.operations), weights the number of its weight
tensors. The rate and the overhead are assumed (SPEEDS, each with its source), or `batch` is measured
(twore.study.calibrate). The metrics of checkpoints, seconds each, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from twore.study.operations import forward_operations
from twore.study.specs import Study
from twore.tasks.base import Task
from twore.training import Numerics, Training
from twore.training.numerics import resolve

TRAINING = 3  # forward passes that one training pass costs: itself, gradients of activations and of weights
RECORD_BYTES = 4096  # a record on disk: one block of most file systems
ROW_BYTES = 300  # a row of a table; seen in results.csv
REPORT_BYTES = 4_000_000  # figures (PNG and SVG) and report.html of a study; seen with the preset quick


@dataclass(frozen=True)
class Speed:
    """How fast a device trains: `rate` multiply-adds a second, `overhead` seconds for each weight tensor in a batch."""

    rate: float
    overhead: float
    source: str


SPEEDS: dict[tuple[str, str], Speed] = {  # by device and precision
    ("cpu", "bf16"): Speed(
        8.0e10, 2e-4, "one thread of a 2025 server CPU, bf16, PreResNet-8 at 32x32: 2,000 images/s; 2026-11-23"
    ),
    ("cpu", "float32"): Speed(
        4.0e10, 2e-4, "one thread of a 2025 server CPU, float32, PreResNet-8 at 8x8: 5,500 images/s; 2026-11-23"
    ),
    ("cuda", "bf16"): Speed(6.0e12, 2.5e-4, "a guess for a data-centre GPU, bf16; not measured"),
    ("cuda", "float32"): Speed(3.0e12, 2.5e-4, "a guess for a data-centre GPU, float32; not measured"),
    ("mps", "bf16"): Speed(4.0e11, 4e-4, "a guess for an Apple GPU; not measured"),
    ("mps", "float32"): Speed(4.0e11, 4e-4, "a guess for an Apple GPU; not measured"),
}


@dataclass(frozen=True)
class Pace:
    """How fast one setting trains."""

    batch: float  # seconds of a training batch
    batches: int  # of an epoch
    evaluation: float  # seconds of one evaluation of all splits
    reading: float  # seconds of a forward pass over the training set


PaceOf = Callable[[Study, Training], Pace | None]  # of a setting's study and one of its runs; None: not known


@dataclass(frozen=True)
class Size:
    """What one setting's model and data amount to; None: the task does not say."""

    weights: int  # weight tensors: parameters of two or more dimensions
    bytes: int  # of a stored checkpoint
    forward: int | None  # multiply-adds of a forward pass on one example
    train: int | None  # examples of an epoch
    evaluated: int | None  # examples of one evaluation of all splits
    example_size: int  # what one example takes up of a batch size


@dataclass(frozen=True)
class Row:
    """One setting of a study; seconds are None where they are not known."""

    columns: Mapping[str, Any]
    trainings: int
    cells: int
    forward: int | None  # multiply-adds of a forward pass on one example
    each_training: float | None  # seconds
    each_cell: float | None  # seconds

    @property
    def seconds(self) -> float | None:
        """Of all its work, one job after the other."""
        if self.each_training is None or self.each_cell is None:
            return None
        return self.trainings * self.each_training + self.cells * self.each_cell


@dataclass(frozen=True)
class Estimate:
    """What a study costs, each training and each cell counted once."""

    rows: tuple[Row, ...]
    group: int  # cells of one job
    kept: int  # bytes on disk in the end
    working: int  # bytes more, at most, for each worker while it runs

    @property
    def trainings(self) -> int:
        """Dense runs."""
        return sum(row.trainings for row in self.rows)

    @property
    def cells(self) -> int:
        """Fine-tuned cells."""
        return sum(row.cells for row in self.rows)

    def seconds(self, workers: int = 1) -> float | None:
        """Of the whole study with so many workers in all: work shared out, but no less than its longest chain."""
        each = [row.seconds for row in self.rows]
        if any(seconds is None for seconds in each):
            return None
        chains = [(row.each_training or 0) + self.group * (row.each_cell or 0) for row in self.rows if row.cells]
        return max(sum(seconds or 0 for seconds in each) / workers, *chains, 0.0)


def assumed_pace(setting: Study, spec: Training) -> Pace | None:
    """The pace that SPEEDS says for a setting; None when the task does not say its size."""
    return pace_at(assumed_speed(setting.numerics), setting, spec)


def pace_at(speed: Speed, setting: Study, spec: Training) -> Pace | None:
    """The pace of one of a setting's runs at a given speed; None when the task does not say its size."""
    size = size_of(setting.task)
    if size.forward is None or size.train is None or size.evaluated is None:
        return None
    example = size.forward / speed.rate
    batch = TRAINING * example * spec.batch_size / size.example_size + size.weights * speed.overhead
    batches = spec.batches_of(math.ceil(size.train * size.example_size / spec.batch_size))
    return Pace(batch, batches, size.evaluated * example, size.train * example)


def estimate(study: Study, pace_of: PaceOf = assumed_pace) -> Estimate:
    """Work and disk of a study, at the assumed pace unless a measured one is given."""
    rows: dict[str, Row] = {}
    seen: set[str] = set()
    kept, working = REPORT_BYTES, 0
    for trajectory in study.trajectories:
        setting, size = trajectory.study, size_of(trajectory.study.task)
        is_new, cells = trajectory.key not in seen, 0
        seen.add(trajectory.key)
        if is_new:
            kept += RECORD_BYTES + len(trajectory.epochs) * (size.bytes + RECORD_BYTES + ROW_BYTES)
        for group in trajectory.groups():
            new = [key for key in group.cell_keys.values() if key not in seen]
            seen.update(new)
            cells += len(new)
            kept += (len(new) + bool(group.pairs)) * (RECORD_BYTES + ROW_BYTES)
        kept += cells * size.bytes if study.keep_weights else 0
        slots = 2 if setting.dense.optimizer == "sgd" else 3  # weights and momentum, or weights and two moments
        working = max(working, size.bytes * (slots + len(setting.finetune_seeds)))
        row = rows.get(trajectory.setting)
        row = row or Row(trajectory.columns, 0, 0, size.forward, *job_seconds(setting, pace_of))
        rows[trajectory.setting] = replace(row, trainings=row.trainings + is_new, cells=row.cells + cells)
    return Estimate(tuple(rows.values()), len(study.finetune_seeds), kept, working)


def job_seconds(setting: Study, pace_of: PaceOf = assumed_pace) -> tuple[float | None, float | None]:
    """Of one dense run, and of one cell with its share of the pair metrics, for a setting's study."""
    dense, fine = pace_of(setting, setting.dense), pace_of(setting, setting.finetune)
    if dense is None or fine is None:
        return None, None
    training = setting.dense.epochs * dense.batches * dense.batch + (setting.dense.epochs + 1) * dense.evaluation
    reading = fine.reading if len(setting.finetune_seeds) > 1 else 0.0
    return training, setting.finetune.epochs * fine.batches * fine.batch + fine.evaluation + reading


def assumed_speed(numerics: Numerics) -> Speed:
    """The speed behind assumed_pace; `auto` is what this machine has, and bf16."""
    device = resolve(numerics).device if numerics.device == "auto" else numerics.device
    return SPEEDS[device, "bf16" if numerics.precision == "auto" else numerics.precision]


def assumed_source(numerics: Numerics) -> str:
    """Where the assumed pace comes from, and how far it can be trusted."""
    speed = assumed_speed(numerics)
    return (
        f"an assumed {_short(speed.rate)} multiply-adds a second ({speed.source}); right within a factor of 3 or so, "
        "and --calibrate measures it here"
    )


def size_of(task: Task) -> Size:
    """Builds the task's model once and counts (a second or so for a large one); touches no data."""
    value: Any = task  # hashable: a frozen value
    return _size_of(value)


@lru_cache(maxsize=256)
def _size_of(task: Any) -> Size:
    with torch.random.fork_rng(devices=[]):
        model = task.build()
    weights = sum(parameter.ndim >= 2 for parameter in model.parameters())
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    size = getattr(task, "example_size", 1)
    if not hasattr(task, "example_inputs") or not hasattr(task, "example_counts"):
        return Size(weights, stored, None, None, None, size)
    counts = dict(task.example_counts())
    train = counts.pop("train", None)
    forward = forward_operations(model, task.example_inputs()) or None  # none counted: not known
    return Size(weights, stored, forward, train, sum(counts.values()), size)


def table(found: Estimate, *, workers: int, source: str, shards: int = 1) -> str:
    """The estimate for people: a line a setting, then time for `workers` workers in each of `shards`, and disk."""
    names = {name for row in found.rows for name in row.columns if len({r.columns.get(name) for r in found.rows}) > 1}
    labels = [
        _label({n: v for n, v in row.columns.items() if n in names or len(found.rows) == 1}) for row in found.rows
    ]
    head = ("setting", "trainings", "cells", "multiply-adds", "a training", "a cell", "in all")
    lines: list[tuple[str, ...]] = [head]
    for label, row in zip(labels, found.rows):
        seconds = (row.each_training, row.each_cell, row.seconds)
        forward = "?" if row.forward is None else _short(row.forward)
        lines.append((label, str(row.trainings), f"{row.cells:,}", forward, *map(duration, seconds)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
            for line in lines]  # fmt: skip
    spent = found.seconds(workers * shards)
    many = f"{workers} worker{'s' if workers > 1 else ''}" + (f" in each of {shards} shards" if shards > 1 else "")
    text.append(
        f"time: unknown, since the task does not say its size ({many}); --calibrate measures it"
        if spent is None
        else f"time: about {duration(spent)} with {many}, from {source}"
    )
    text.append(f"disk: {data_size(found.kept)} in the end, up to {data_size(found.working * workers)} more on the way")
    return "\n".join(text)


def duration(seconds: float | None) -> str:
    """Seconds in words: 42 s, 12 min, 3.4 h, 2.1 days; ? when not known."""
    if seconds is None:
        return "?"
    units = ((90, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h"), (math.inf, 86400, "days"))  # up to, unit, word
    size, word = next((size, word) for limit, size, word in units if seconds < limit or limit == math.inf)
    value = seconds / size
    return f"{value:.0f} {word}" if value >= 10 or (size == 1 and value >= 1) else f"{value:.1f} {word}"


def data_size(count: float) -> str:
    """Bytes in words: 850 kB, 12 MB, 3.4 GB."""
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            value = count / unit
            return f"{value:.0f} {word}" if value >= 10 else f"{value:.1f} {word}"
    return f"{count / 1e3:.0f} kB"


def _label(columns: Mapping[str, Any]) -> str:
    return " ".join(f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in columns.items()) or "(one setting)"


def _short(count: float) -> str:
    """A large number to three digits: 40.8 M."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return str(count)
