"""Stacked studies against the same ones cell by cell: tables, failures, resuming."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from toy import CPU, ToyData, ToyTask

from twore.study import Store, Study, run_study, stack_width
from twore.study import stacked as stage
from twore.study.claims import Claims
from twore.study.create import open_study
from twore.study.faults import FolderError, record_failure
from twore.study.outcomes import Died, TooLong
from twore.study.progress import Bar
from twore.study.run import _settle
from twore.study.schedule import Job, Schedule
from twore.study.stack_width import choose
from twore.study.status import read_status
from twore.study.tables import PROVENANCE

POISONED = 0.8  # the ratio at which the loss of Poison is not a number


@dataclass(frozen=True)
class PoisonTask(ToyTask):
    def load(self, folder: Path | None, device: torch.device) -> ToyData:
        return PoisonData(self, device)


class PoisonData(ToyData):
    """A network with most of its first layer pruned away gets NaN: only fine-tuned cells of one ratio do."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        loss, count = super().loss(model, batch)
        empty = (dict(model.named_parameters())["0.weight"] == 0).double().mean() > 0.5
        return loss * torch.where(empty, torch.nan, 1.0), count


def wide(study: Study, width: int) -> Study:
    return replace(study, numerics=replace(study.numerics, stack=width))


def table(results: Any) -> pd.DataFrame:
    return results.cells.drop(columns=list(PROVENANCE)).reset_index(drop=True)


def test_a_stacked_study_has_the_scores_of_one_cell_by_cell(toy_study: Study, tmp_path: Path) -> None:
    alone = run_study(toy_study, tmp_path / "alone", executor="serial", quiet=True)
    both = run_study(wide(toy_study, 3), tmp_path / "stacked", executor="serial", quiet=True)
    a, b = table(alone), table(both)
    assert len(b) == 16 and not set(a["key"]) & set(b["key"])
    exact = ["setting", "dense_seed", "epoch", "ratio", "density", "finetune_seed", "revived"]
    pd.testing.assert_frame_equal(a[exact], b[exact])
    assert (a["train_loss"] - b["train_loss"]).abs().max() < 1e-5
    assert (a["score"] - b["score"]).abs().max() < 1e-6  # no example is so near a tie
    pd.testing.assert_frame_equal(
        alone.pairs.drop(columns=["key", *PROVENANCE]), both.pairs.drop(columns=["key", *PROVENANCE]), rtol=1e-4
    )
    pd.testing.assert_frame_equal(alone.curves, both.curves, check_exact=True)  # dense runs are the same, by key too
    status = read_status(tmp_path / "stacked")
    assert status.state == "finished" and not list((tmp_path / "stacked/store/running").iterdir())
    assert not list((tmp_path / "stacked/store/weights").iterdir())


def test_the_width_is_in_the_keys_of_cells_alone(toy_study: Study) -> None:
    for a, b in zip(toy_study.trajectories, wide(toy_study, 4).trajectories):
        assert a.key == b.key and a.checkpoint_key(2) == b.checkpoint_key(2)
        for one, other in zip(a.groups(), b.groups()):
            assert one.probe_key == other.probe_key and one.pairs_key != other.pairs_key
            assert not set(one.cell_keys.values()) & set(other.cell_keys.values())


def test_workers_and_interruptions_change_nothing(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = wide(toy_study, 3)
    whole = run_study(study, tmp_path / "whole", executor="serial", quiet=True)
    kept = stage.finished_cell
    calls = 0

    def stopping(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:  # in the middle of a stack's records
            raise KeyboardInterrupt
        kept(*args, **options)

    monkeypatch.setattr(stage, "finished_cell", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "again", executor="serial", quiet=True)
    monkeypatch.setattr(stage, "finished_cell", kept)
    again = run_study(study, tmp_path / "again", executor="serial", quiet=True)
    pd.testing.assert_frame_equal(table(whole), table(again), check_exact=True)


def test_a_cell_that_diverges_fails_alone(toy_study: Study, tmp_path: Path) -> None:
    study = wide(replace(toy_study, task=PoisonTask(), dense_seeds=(0,), probe_batches=0), 4)
    results = run_study(study, tmp_path, executor="serial", quiet=True)
    assert sorted(results.cells["ratio"].unique()) == [0.3] and len(results.cells) == 4
    assert len(results.failures) == 2 and results.failures["job"].str.contains("ratio=0.8").all()
    assert results.failures["reason"].str.contains("training loss of epoch 1 is nan").all()
    alone = run_study(replace(wide(study, 1), ratios=(0.3,)), tmp_path / "alone", executor="serial", quiet=True)
    assert (table(alone)["score"] - table(results)["score"]).abs().max() < 1e-6


def test_stacks_are_filled_with_ready_groups_and_claimed(toy_study: Study, tmp_path: Path) -> None:
    study = wide(replace(toy_study, dense_seeds=(0,)), 3)
    run_study(replace(study, ratios=(0.3,)), tmp_path, executor="serial", quiet=True)
    store = Store(tmp_path)
    with Claims(store.claims) as claims:
        schedule = Schedule(replace(study, ratios=(0.3, 0.5, 0.8), data_fingerprint="toy-48"), store, claims)
        jobs = [schedule.next(), schedule.next()]
        assert [len(job.parts) for job in jobs if job] == [3, 1] and schedule.next() is None
        assert sum(job.cells for job in jobs if job) == 8
        assert not claims.take(jobs[0].parts[2].key) if jobs[0] else False


def test_auto_is_measured_once(toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twore.study.stack_width.choose", lambda seconds: max(seconds))
    first = open_study(wide(toy_study, 0), tmp_path, None)
    assert first.numerics.stack in (1, 2, 4)
    monkeypatch.setattr("twore.study.create.fastest_width", lambda *_: 99)
    assert open_study(wide(toy_study, 0), tmp_path, None).numerics.stack == first.numerics.stack


def test_the_smallest_width_near_the_best_is_chosen() -> None:
    assert choose({1: 1.0, 2: 0.95, 4: 0.93}) == 1  # not worth it
    assert choose({1: 1.0, 2: 0.6, 4: 0.5, 8: 0.49}) == 4


def test_a_stack_that_fails_is_no_failure_of_a_group_without_a_cell_in_it(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = wide(replace(toy_study, task=PoisonTask(), dense_seeds=(0,), checkpoints=(4,), probe_batches=0), 2)
    only = replace(study, ratios=(0.3,))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "paired", Mock(side_effect=KeyboardInterrupt))
        run_study(only, tmp_path, executor="serial", quiet=True)
    results = run_study(study, tmp_path, executor="serial", quiet=True)  # pairs are left of 0.3, everything of 0.8
    assert results.pairs["ratio"].unique() == [0.3]
    assert len(results.failures) == 1 and "ratio=0.8" in results.failures["job"][0]


def test_auto_is_measured_on_the_heaviest_setting(toy_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ({"task.hidden": 8}, {"task.hidden": 64}, {"task.hidden": 4})
    measured = []

    def seconds(setting: Study, data: Any, _numerics: Any, width: int) -> float:
        measured.append((setting.task.hidden, data.task.hidden))  # type: ignore[attr-defined]
        return 1.0 + width

    monkeypatch.setattr(stack_width, "_seconds", seconds)
    study = replace(toy_study, settings=settings)
    assert stack_width.fastest_width(study, CPU, lambda task: task.load(None, torch.device("cpu"))) > 1
    assert set(measured) == {(64, 64)}


def test_without_memory_a_narrower_stack_is_named(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = wide(replace(toy_study, dense_seeds=(0,), checkpoints=(4,), probe_batches=0), 2)
    monkeypatch.setattr(stage, "StackedData", Mock(side_effect=MemoryError()))
    reasons = run_study(study, tmp_path, executor="serial", quiet=True).failures["reason"]
    assert reasons.str.startswith("out of memory: a smaller --numerics.stack, in a new --out, needs less").all()
    store, job = Store(tmp_path), Job(study.trajectories[0], next(study.trajectories[0].groups()))
    with Claims(store.claims) as claims:
        schedule, crashes = Schedule(study, store, claims), Counter({(job.key, True): 5})
        _settle(job, Died("was killed by signal 9"), schedule, crashes, Bar(4, 2, store, quiet=True))
    record = store.get("failures", job.key)
    assert record is not None and "6 times (a smaller --numerics.stack, in a new --out" in record["reason"]


def test_groups_done_before_their_worker_was_ended_are_done(toy_study: Study, tmp_path: Path) -> None:
    study = wide(replace(toy_study, dense_seeds=(0,), checkpoints=(4,), data_fingerprint="toy-48"), 2)
    run_study(replace(study, ratios=(0.3,)), tmp_path, executor="serial", quiet=True)
    store = Store(tmp_path)
    done, left = study.trajectories[0].groups()
    record_failure(store, done.pairs_key, "of an earlier run")
    with Claims(store.claims) as claims:
        schedule = Schedule(study, store, claims)
        assert not store.keys("failures")  # it went right since
        record_failure(store, done.pairs_key, "of an earlier run")
        job = Job(done.trajectory, done, (Job(left.trajectory, left),))
        _settle(job, TooLong("the time limit of 1 s"), schedule, Counter(), Bar(4, 2, store, quiet=True))
        assert store.keys("failures") == {left.pairs_key} and schedule.done == 4


def test_states_go_when_something_was_written(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    study = wide(replace(toy_study, dense_seeds=(0,), checkpoints=(4,), finetune_seeds=(0,), probe_batches=0), 2)
    states = lambda: list((tmp_path / "store/running").glob("*.safetensors"))  # noqa: E731
    with monkeypatch.context() as patch, pytest.raises(FolderError):
        patch.setattr(stage, "finished_cell", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        run_study(study, tmp_path, executor="serial", quiet=True)
    assert len(states()) == 1
    _, second = replace(study, data_fingerprint="toy-48").trajectories[0].groups()
    (tmp_path / f"store/running/{second.cell_key(0)}-before.safetensors").touch()  # a stack that began with it
    run_study(study, tmp_path, executor="serial", quiet=True)
    assert not states()
