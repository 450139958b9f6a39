"""Studies whose dense runs train in stacks against the same ones run by run: tables, failures, resuming, repairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from test_stacked import table
from torch import Tensor, nn
from toy import ToyData, ToyTask

from twore.files import read_tensors, write_record
from twore.study import Store, Study, dense, run_study, stacked_dense
from twore.study.claims import Claims
from twore.study.faults import FolderError
from twore.study.schedule import Schedule
from twore.study.tables import PROVENANCE
from twore.training import DivergedError


def deep(study: Study, width: int, seeds: tuple[int, ...] = (0, 1, 2)) -> Study:
    return replace(study, dense_seeds=seeds, numerics=replace(study.numerics, dense_stack=width))


def small(study: Study, width: int, seeds: tuple[int, ...] = (0, 1, 2)) -> Study:
    """One cell a dense run; a moving average beside the checkpoints."""
    one = replace(study, ratios=(0.3,), finetune_seeds=(0,), checkpoints=(4,), data_fingerprint="toy-48")
    return deep(replace(one, dense=replace(one.dense, ema=1.0)), width, seeds)


def run(study: Study, out: Path) -> Any:
    return run_study(study, out, executor="serial", quiet=True)


def kept(study: Study, out: Path) -> list[dict[str, Tensor]]:
    """Checkpoints and averages of every dense run, in order."""
    store = Store(out)
    places = [(store.checkpoint(t.key, e), store.average(t.key, e)) for t in study.trajectories for e in t.epochs]
    found = [read_tensors(path)[0] for both in places for path in both if path.exists()]
    return [{name: tensor.clone() for name, tensor in file.items()} for file in found]  # of their own, not the file's


def close(a: pd.DataFrame, b: pd.DataFrame) -> None:
    passing = ["key", *PROVENANCE]
    kept = [column for column in a.columns if column not in passing]
    assert list(a.columns) == list(b.columns)
    pd.testing.assert_frame_equal(a[kept], b[kept], rtol=1e-4, atol=1e-4)


def test_all_tables_are_those_of_single_runs(toy_study: Study, tmp_path: Path) -> None:
    study = replace(toy_study, ratios=(0.3,))
    alone, both = deep(study, 1), deep(study, 2)  # the third run has a stack with its own copy
    a, b = run(alone, tmp_path / "alone"), run(both, tmp_path / "stacked")
    assert len(b.cells) == 12 and not set(a.cells["key"]) & set(b.cells["key"])
    for name in ("cells", "curves", "checkpoints", "pairs", "probes"):
        close(getattr(a, name), getattr(b, name))
    store = Store(tmp_path / "stacked")
    assert not list((store.root / "running").iterdir()) and not list(store.claims.iterdir())


def test_checkpoints_and_averages_are_those_of_single_runs(toy_study: Study, tmp_path: Path) -> None:
    alone, both = small(toy_study, 1), small(toy_study, 3)
    run(alone, tmp_path / "alone")
    run(both, tmp_path / "stacked")
    one, other = kept(alone, tmp_path / "alone"), kept(both, tmp_path / "stacked")
    assert len(one) == len(other) == 9  # 3 runs: the initialisation, the last epoch, its average
    for a, b in zip(one, other):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_the_width_is_in_keys_only_where_it_is_not_1(toy_study: Study) -> None:
    keys = [[t.key for t in deep(toy_study, width).trajectories] for width in (1, 2, 3)]
    assert keys[0] == [t.key for t in replace(toy_study, dense_seeds=(0, 1, 2)).trajectories]
    assert len({key for some in keys for key in some}) == 9
    with pytest.raises(ValueError, match="dense_stack is a number of models, at least 1"):
        deep(toy_study, 0)


def test_a_kill_costs_what_was_not_saved(toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    study = small(toy_study, 3)
    whole = run(study, tmp_path / "whole")
    original, seen = stacked_dense.keep_epoch, []

    def stopping(context: Any, trajectory: Any, record: Any, *rest: Any) -> Any:
        seen.append(record.epoch)
        if record.epoch == 3 and trajectory.seed == 1:
            raise KeyboardInterrupt
        return original(context, trajectory, record, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stacked_dense, "keep_epoch", stopping)
        run(study, tmp_path / "again")
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3]
    monkeypatch.setattr(stacked_dense, "keep_epoch", lambda *args: seen.append(args[2].epoch) or original(*args))
    again = run(study, tmp_path / "again")
    assert seen[8:] == [3, 3, 3, 4, 4, 4]
    pd.testing.assert_frame_equal(table(whole), table(again), check_exact=True)
    pd.testing.assert_frame_equal(whole.curves, again.curves, check_exact=True)
    for a, b in zip(kept(study, tmp_path / "whole"), kept(study, tmp_path / "again")):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert not list((tmp_path / "again/store/running").iterdir())


@dataclass(frozen=True)
class TroubledTask(ToyTask):
    """The loss is not a number where the first bias is what seed 1 makes it."""

    def load(self, folder: Path | None, device: torch.device) -> ToyData:
        return TroubledData(self, device)


class TroubledData(ToyData):
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        loss, count = super().loss(model, batch)
        first = dict(model.named_parameters())["0.bias"][0]
        return loss * torch.where((first - UNLUCKY).abs() < 0.02, torch.nan, 1.0), count


UNLUCKY = 0.0  # set by the test


def test_a_run_that_diverges_fails_alone(toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small(replace(toy_study, task=TroubledTask()), 3)
    firsts = [float(dense.initial_model(t).state_dict()["0.bias"][0]) for t in study.trajectories]
    assert min(abs(firsts[1] - other) for other in (firsts[0], firsts[2])) > 0.05
    monkeypatch.setitem(globals(), "UNLUCKY", firsts[1])
    results = run(study, tmp_path)
    assert list(results.failures["job"]) == ["hidden=8 seed=1"]
    assert "training loss of epoch 1 is nan" in results.failures["reason"][0]
    assert sorted(results.cells["dense_seed"]) == [0, 2]
    sound = run(small(toy_study, 3, (0, 2)), tmp_path / "sound")  # the others as if it had not been there
    for a, b in zip(results.cells["score"], sound.cells["score"], strict=True):
        assert a == b


def test_a_run_whose_scores_are_not_finite_fails_alone(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = stacked_dense.keep_epoch

    def failing(context: Any, trajectory: Any, record: Any, *rest: Any) -> Any:
        if trajectory.seed == 2 and record.epoch >= 2:
            raise DivergedError("the outputs are not finite")
        return original(context, trajectory, record, *rest)

    monkeypatch.setattr(stacked_dense, "keep_epoch", failing)
    results = run(small(toy_study, 3), tmp_path)
    assert list(results.failures["job"]) == ["hidden=8 seed=2"]
    assert results.failures["reason"][0].endswith("the outputs are not finite")
    assert sorted(results.cells["dense_seed"]) == [0, 1]


def test_runs_are_claimed_together_and_alike(toy_study: Study, tmp_path: Path) -> None:
    settings = ({}, {"task.hidden": 4}, {"dense.lr": 0.01})
    study = replace(deep(toy_study, 2), settings=settings, data_fingerprint="toy-48")
    with Claims(Store(tmp_path).claims) as claims:
        schedule = Schedule(study, Store(tmp_path), claims)
        jobs = [schedule.next() for _ in range(7)]
        found = [[(p.trajectory.setting, p.trajectory.seed) for p in job.parts] for job in jobs if job]
        assert [len(parts) for parts in found] == [2, 1, 2, 1, 2, 1] and jobs[6] is None
        assert all(len({setting for setting, _ in parts}) == 1 for parts in found)
        assert jobs[0] and jobs[0].words.endswith("and 1 more") and jobs[0].cells == 0
        assert not claims.take(jobs[0].parts[1].key)


@pytest.mark.parametrize("width", [1, 3])
def test_a_damaged_checkpoint_is_made_again_as_it_was(toy_study: Study, tmp_path: Path, width: int) -> None:
    study = small(toy_study, width)  # it is found by a probe
    run(study, tmp_path)
    before = kept(study, tmp_path)
    path = Store(tmp_path).checkpoint(study.trajectories[1].key, 4)
    path.write_bytes(path.read_bytes()[:-9])
    grown = replace(study, ratios=(0.3, 0.5))
    assert len(run(grown, tmp_path).cells) == 6
    for a, b in zip(before, kept(study, tmp_path), strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_a_full_disk_leaves_the_state(toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    states = lambda: list((tmp_path / "store/running").glob("*.safetensors"))  # noqa: E731
    with monkeypatch.context() as patch, pytest.raises(FolderError):
        patch.setattr(stacked_dense, "keep_run", Mock(side_effect=OSError(28, "full")))
        run(small(toy_study, 3), tmp_path)
    assert len(states()) == 1
    run(small(toy_study, 3), tmp_path)
    assert not states()


def _trouble(*places: tuple[int, int], value: float = float("inf")) -> Any:
    """train, whose records say this loss for these (model, epoch)."""
    original = stacked_dense.train

    def changed(run: Any, *, after_epoch: Any, state: Any) -> Any:
        def troubled(record: Any) -> Any:
            each = [value if (k, record.epoch) in places else loss for k, loss in enumerate(record.each)]
            told.append(replace(record, each=tuple(each)))
            return after_epoch(told[-1])

        told: list[Any] = []
        return [replace(r, each=t.each) for r, t in zip(original(run, after_epoch=troubled, state=state), told)]

    return changed


def test_a_run_keeps_nothing_after_its_loss_was_not_finite(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(small(toy_study, 3), checkpoints=(2, 4))
    monkeypatch.setattr(stacked_dense, "train", _trouble((1, 3)))  # infinite once, then finite again
    results = run(study, tmp_path)
    assert list(results.failures["job"]) == ["hidden=8 seed=1"]
    assert "training loss of epoch 3 is inf" in results.failures["reason"][0]
    assert Store(tmp_path).checkpoints(study.trajectories[1].key) == {0, 2}  # as if it had stopped
    assert [len(results.cells.query(f"dense_seed == {seed}")) for seed in (0, 1, 2)] == [2, 1, 2]


def test_a_resumed_stack_remembers_what_went_wrong(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    original, study = stacked_dense.keep_epoch, small(toy_study, 3)

    def failing(context: Any, trajectory: Any, record: Any, *rest: Any) -> Any:
        if record.epoch == 2 and trajectory.seed == 2:
            raise DivergedError("the outputs are not finite")
        if record.epoch == 4 and trajectory.seed == 0:
            raise KeyboardInterrupt
        return original(context, trajectory, record, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stacked_dense, "keep_epoch", failing)
        run(study, tmp_path)
    results = run(study, tmp_path)
    assert list(results.failures["job"]) == ["hidden=8 seed=2"]
    assert Store(tmp_path).checkpoints(study.trajectories[2].key) == {0}


def test_a_stack_without_a_sound_run_ends(toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_dense, "train", _trouble((0, 1), (1, 3), (2, 2)))
    watched: list[int] = []
    original = stacked_dense.keep_epoch
    monkeypatch.setattr(stacked_dense, "keep_epoch", lambda *args: watched.append(args[2].epoch) or original(*args))
    reasons = run(small(toy_study, 3), tmp_path).failures.set_index("job")["reason"]
    for seed, epoch in ((0, 1), (1, 3), (2, 2)):
        assert f"training loss of epoch {epoch} is inf" in reasons[f"hidden=8 seed={seed}"]
    assert watched == [1, 1, 2]


def test_a_run_of_other_data_fails_alone(toy_study: Study, tmp_path: Path) -> None:
    study, store = small(toy_study, 3), Store(tmp_path)
    write_record(store.data_record(study.trajectories[1].key), {"train": 47})
    results = run(study, tmp_path)
    assert list(results.failures["job"]) == ["hidden=8 seed=1"]
    assert "no longer those of the dense run" in results.failures["reason"][0]


def test_the_state_of_a_stack_that_is_no_longer_asked_goes(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stacked_dense, "keep_run", Mock(side_effect=KeyboardInterrupt))
        run(small(toy_study, 3), tmp_path)
    assert list((tmp_path / "store/running").glob("*.safetensors"))
    run(small(toy_study, 3, (0, 1)), tmp_path)
    assert not list((tmp_path / "store/running").iterdir())
