"""What a stack adds around its training: its width, its members' shares of the time, the words when memory is short."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from test_stacked import table, wide
from test_stacked_dense import deep, run, small

from twore.study import Store, Study, stacked, stacked_dense
from twore.study.claims import Claims
from twore.study.outcomes import Died
from twore.study.progress import Bar
from twore.study.run import _settle
from twore.study.schedule import Job, Schedule
from twore.training import Stack, StackEpoch


def one_group(study: Study, seeds: tuple[int, ...] = (0,)) -> Study:
    """A cell a dense run, in stacks of cells."""
    few = replace(study, ratios=(0.3,), checkpoints=(4,), finetune_seeds=(0,), data_fingerprint="toy-48")
    return replace(few, dense_seeds=seeds, probe_batches=0)


@pytest.mark.parametrize("stage", [stacked, stacked_dense])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_stack_is_as_wide_as_asked_whatever_there_is_to_do(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, precision: str
) -> None:
    """A width of 3, for one cell and for one dense run."""
    seen: list[tuple[int, bool]] = []

    class Seen(Stack):
        def __init__(self, models: Any, *, bf16: bool = False) -> None:
            seen.append((len(models), bf16))
            super().__init__(models, bf16=bf16)

    monkeypatch.setattr(stage, "Stack", Seen)
    study = one_group(toy_study)
    study = wide(study, 3) if stage is stacked else deep(study, 3, (0,))
    run(replace(study, numerics=replace(study.numerics, precision=precision)), tmp_path)
    assert seen == [(3, precision == "bf16")]


@pytest.mark.parametrize(("stage", "last"), [(stacked, "finished_cell"), (stacked_dense, "keep_run")])
def test_the_seconds_of_a_stack_are_shared_out(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, last: str
) -> None:
    """It began at 0 and was trained at 10; at 100 each of its two members has taken 5 s."""
    study = one_group(toy_study, (0, 1))
    study = wide(study, 4) if stage is stacked else deep(study, 4, (0, 1))
    if stage is stacked:
        run(replace(study, finetune_seeds=(7,)), tmp_path)  # its dense runs, before
    kept, began = getattr(stage, last), []
    monkeypatch.setattr(stage, last, lambda *args, **how: (began.append(how["started"]), kept(*args, **how)))
    ticks = chain([0.0, 10.0], repeat(100.0))
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    run(study, tmp_path)
    assert began == [95.0, 95.0]


def test_an_epoch_of_a_stack_as_one_model_has_it() -> None:
    record = StackEpoch(3, 9, 0.1, 2.0, 80.0, {"each": [{"score": 1.0}, {"score": 5.0}]}, each=(1.5, 2.5))
    found = stacked_dense._record(record, 1)
    assert (found.epoch, found.update, found.lr, found.train_loss, found.rate) == (3, 9, 0.1, 2.5, 40.0)
    assert found.scores == {"score": 5.0} and type(found) is not StackEpoch


def test_without_memory_a_narrower_dense_stack_is_named(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small(toy_study, 2)
    monkeypatch.setattr(stacked_dense, "StackedData", Mock(side_effect=MemoryError()))
    reasons = run(study, tmp_path).failures["reason"]
    words = "out of memory: a smaller --numerics.dense_stack, in a new --out, needs less, and so do fewer --workers"
    assert len(reasons) == 3 and reasons.str.startswith(words).all()
    store, (first, second, _) = Store(tmp_path), study.trajectories
    job = Job(first, more=(Job(second),))
    with Claims(store.claims) as claims:
        schedule, crashes = Schedule(study, store, claims), Counter({(job.key, True): 5})
        _settle(job, Died("was killed by signal 9"), schedule, crashes, Bar(3, 0, store, quiet=True))
    for trajectory in (first, second):
        record = store.get("failures", trajectory.key)
        assert record is not None and "6 times (a smaller --numerics.dense_stack, in a new --out" in record["reason"]


def test_stacked_cells_go_on_by_their_checkpoints_clock(toy_study: Study, tmp_path: Path) -> None:
    """Fine-tuning counts on from epoch 2, where the rate has dropped."""
    fine = replace(toy_study.dense, epochs=3, drops=(2,), clock="continue")
    study = replace(toy_study, finetune=fine, dense_seeds=(0,), checkpoints=(2,))
    alone, both = run(study, tmp_path / "alone"), run(wide(study, 2), tmp_path / "stacked")
    a, b = table(alone), table(both)
    assert (a["train_loss"] - b["train_loss"]).abs().max() < 1e-5
    again = run(replace(study, finetune=replace(fine, clock="restart")), tmp_path / "restart")
    assert (table(again)["train_loss"] - a["train_loss"]).abs().min() > 1e-4  # or the clock would not show


def test_a_kill_between_two_records_leaves_no_state_behind(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    kept, calls = stacked_dense.keep_run, []

    def stopping(*args: Any, **how: Any) -> None:
        calls.append(args[1].seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        kept(*args, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stacked_dense, "keep_run", stopping)
        run(small(toy_study, 3), tmp_path)
    assert list((tmp_path / "store/running").glob("*.safetensors"))
    assert len(run(small(toy_study, 3), tmp_path).cells) == 3
    assert not list((tmp_path / "store/running").iterdir())
