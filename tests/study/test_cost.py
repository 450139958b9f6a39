"""Counted work against hand counts; hours and disk from it; measuring on the data or on random inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from toy import FEATURES, ToyTask

from twore.data import DataError
from twore.recipes.cifar_scaling import paper
from twore.study import calibrate
from twore.study.cost import (
    SPEEDS,
    Pace,
    assumed_pace,
    assumed_source,
    data_size,
    duration,
    estimate,
    job_seconds,
    size_of,
    table,
)
from twore.study.operations import forward_operations
from twore.tasks import CifarTask

TOY_BYTES = 4 * (80 + 8 + 4 * 8 + 24 + 3) + 8  # two layers, four vectors of batch normalisation and its int64 count


@dataclass(frozen=True)
class SizedToy(ToyTask):
    """The toy task, saying its size: 48 examples to train on, 24 + 48 scored."""

    absent: bool = False  # whether its data cannot be had

    def example_inputs(self):
        return torch.zeros(1, FEATURES)

    def example_counts(self):
        return {"train": 48, "valid": 24, "test": 48}

    def load(self, folder, device):
        if self.absent:
            raise DataError("no data: name a folder")
        return super().load(folder, device)


class TokenToy(SizedToy):
    """The same, with batches counted in tokens, four an example."""

    example_size: ClassVar[int] = 4


@pytest.fixture
def sized_study(toy_study):
    return replace(toy_study, task=SizedToy())


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (nn.Linear(3, 5), torch.zeros(2, 3), 2 * 3 * 5),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.zeros(1, 4, 8, 8), 4 * 4 * 6 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), torch.zeros(2, 4, 5, 5), 2 * 25 * 4 * 6 * 9),
        (nn.MultiheadAttention(8, 2), (torch.zeros(5, 1, 8), torch.zeros(3, 1, 8), torch.zeros(3, 1, 8)),
         (5 + 3 + 3 + 5) * 8 * 8 + 2 * 5 * 3 * 8),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.zeros(1, 3, 8),
         3 * (4 * 64 + 2 * 128) + 2 * 3 * 3 * 8),
        (nn.ReLU(), torch.zeros(1, 3), 0),
    ],
)  # fmt: skip
def test_operations_by_hand(model, inputs, expected):
    assert forward_operations(model, inputs) == expected


def test_operations_of_preresnet():
    """At 32x32: the stem, each stage's 3x3 convolutions, a 1x1 shortcut where the width doubles, and the read-out."""
    stem, first = 27 * 16 * 1024, 2 * 9 * 16 * 16 * 1024
    second = 9 * 16 * 32 * 256 + 9 * 32 * 32 * 256 + 16 * 32 * 256
    third = 9 * 32 * 64 * 64 + 9 * 64 * 64 * 64 + 32 * 64 * 64
    assert size_of(CifarTask(depth=8)).forward == stem + first + second + third + 640


@pytest.mark.slow
def test_operations_agree_with_torch():
    from torch.utils.flop_counter import FlopCounterMode

    for model, inputs in (
        (CifarTask(depth=20).build(), torch.zeros(1, 3, 32, 32)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (torch.zeros(1, 5, 8),) * 3),
    ):
        mine = forward_operations(model, inputs)
        with FlopCounterMode(display=False) as counter:
            model(*(inputs if isinstance(inputs, tuple) else (inputs,)))
        assert 2 * mine == counter.get_total_flops()


def test_size_of_a_task():
    state = torch.get_rng_state()
    size = size_of(SizedToy())
    assert (size.weights, size.bytes, size.forward, size.train, size.evaluated) == (2, TOY_BYTES, 80 + 24, 48, 72)
    assert torch.equal(torch.get_rng_state(), state)  # a plan draws nothing
    assert size_of(ToyTask()).forward is None
    assert size_of(ToyTask()).bytes == TOY_BYTES


@pytest.mark.parametrize("shifts", [False, True])
def test_counts_known_without_the_data_are_those_of_the_data(shifts):
    task = CifarTask(dataset="digits", data_percent=50.0, holdout=0.1, shifts=shifts)
    counts, told = task.example_counts(), task.load(None, torch.device("cpu")).describe()
    assert counts.keys() == {"train", "valid", "test"}
    assert all(abs(counts[part] - told[part]) <= 0.02 * told[part] for part in counts)  # rounding in each class
    assert CifarTask(data_percent=1.0).example_counts() == {"train": 500, "test": 10_000}
    assert CifarTask(data_percent=10.0, holdout=0.1).example_counts() == {
        "train": 4500,
        "valid": 5000,
        "test": 10_000,
    }


def test_seconds_by_hand(toy_study):
    """4 epochs x 3 batches x 2 s + 5 evaluations x 10 s; 2 fine-tune epochs x 3 x 2 s + 10 s + 7 s for the pairs."""
    pace = Pace(batch=2.0, batches=3, evaluation=10.0, reading=7.0)
    assert job_seconds(toy_study, lambda *_: pace) == (74.0, 29.0)
    assert job_seconds(replace(toy_study, finetune_seeds=(0,)), lambda *_: pace) == (74.0, 22.0)
    found = estimate(toy_study, lambda *_: pace)
    assert found.seconds(1) == 2 * 74 + 16 * 29
    assert found.seconds(2) == (2 * 74 + 16 * 29) / 2
    assert found.seconds(1000) == 74 + 2 * 29  # a dense run, then the cells of a group


def test_assumed_pace(sized_study):
    speed = SPEEDS["cpu", "float32"]
    pace = assumed_pace(sized_study, sized_study.dense)
    assert pace.batch == pytest.approx(3 * 104 * 16 / speed.rate + 2 * speed.overhead)
    assert (pace.batches, pace.evaluation) == (3, pytest.approx(72 * 104 / speed.rate))
    assert pace.reading == pytest.approx(48 * 104 / speed.rate)
    short = replace(sized_study.dense, share=0.7)
    assert assumed_pace(sized_study, short) == replace(pace, batches=2)
    tokens = assumed_pace(replace(sized_study, task=TokenToy()), sized_study.dense)  # 16 tokens hold 4 examples
    assert tokens.batches == 12 and tokens.batch == pytest.approx(3 * 104 * 4 / speed.rate + 2 * speed.overhead)
    assert assumed_pace(replace(sized_study, task=ToyTask()), sized_study.dense) is None
    assert speed.source in assumed_source(sized_study.numerics)
    assert "factor of 3" in assumed_source(sized_study.numerics)


def test_work_that_settings_share_counts_once(sized_study):
    both = replace(sized_study, settings=({"finetune.lr": 0.05}, {"finetune.lr": 0.1}))
    found = estimate(both)
    assert (found.trainings, found.cells) == (2, 32)
    assert len(found.rows) == 2


def test_the_report_in_numbers():
    found = estimate(paper())
    assert (found.trainings, found.cells) == (7, 3024)
    assert [row.forward for row in found.rows] == sorted(row.forward for row in found.rows[:4]) + [40_813_184] * 3
    hours = {tuple(row.columns[n] for n in ("depth", "data_percent")): row.each_training for row in found.rows}
    assert hours[110, 100.0] > 5 * hours[20, 100.0] > 10 * hours[20, 10.0]


def test_disk(toy_study):
    kept = estimate(toy_study).kept
    assert estimate(replace(toy_study, keep_weights=True)).kept - kept == 16 * TOY_BYTES
    more = estimate(replace(toy_study, extra_checkpoints=(0, 1))).kept - kept
    assert 2 * TOY_BYTES < more < 2 * (TOY_BYTES + 10_000)
    assert estimate(toy_study).working == TOY_BYTES * (2 + 2)  # weights, momentum; fine-tuned weights of two seeds
    adam = replace(toy_study, dense=replace(toy_study.dense, optimizer="adam"))
    assert estimate(adam).working == TOY_BYTES * (3 + 2)  # two moments


def test_the_table(sized_study):
    two = replace(sized_study, settings=({}, {"task.hidden": 16}))
    text = table(estimate(two), workers=4, shards=2, source="a guess").splitlines()
    assert text[0].split() == [
        "setting",
        "trainings",
        "cells",
        "multiply-adds",
        "a",
        "training",
        "a",
        "cell",
        "in",
        "all",
    ]
    assert text[1].split()[:4] == ["hidden=8", "2", "16", "104"]
    assert "4 workers in each of 2 shards, from a guess" in text[3]
    assert text[4].startswith("disk: 4.")
    unknown = table(estimate(replace(two, task=ToyTask())), workers=1, source="a guess")
    assert "time: unknown" in unknown
    assert "--calibrate" in unknown


def test_words():
    assert [duration(s) for s in (0.4, 42.3, 700, 3600 * 3.44, 86400 * 12.3, None)] == [
        "0.4 s",
        "42 s",
        "12 min",
        "3.4 h",
        "12 days",
        "?",
    ]
    assert [data_size(n) for n in (900, 4.44e6, 12.4e9)] == ["1 kB", "4.4 MB", "12 GB"]


@pytest.mark.parametrize(
    ("task", "on"), [(ToyTask(), "the data"), (SizedToy(), "the data"), (SizedToy(absent=True), "random inputs")]
)
def test_calibration_measures(toy_study, monkeypatch, task, on):
    monkeypatch.setattr(calibrate, "BUDGET", 0.01)
    study = replace(toy_study, task=task, settings=({}, {"dense.batch_size": 8}))
    measured = calibrate.Calibration(study, None)
    found = estimate(study, measured)
    assert found.seconds(1) > 0
    assert f"on {on}" in measured.source
    assert measured(study.trajectories[0].study, study.dense).batches == 3  # 48 examples in batches of 16


@dataclass(frozen=True)
class AbsentToy(ToyTask):
    """The toy task without its data; it does not say its size either."""

    def load(self, folder, device):
        raise DataError("no data: name a folder")


def test_calibration_without_data_or_size(toy_study):
    with pytest.raises(DataError, match="name a folder"):
        absent = replace(toy_study, task=AbsentToy())
        estimate(absent, calibrate.Calibration(absent, None))
