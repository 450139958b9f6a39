"""Stacks of dense runs in a pool of workers: cells start while a stack trains, kills and resuming change no table."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kill import children
from test_run import run
from test_shards import start_fixture, tables  # noqa: F401  the fixture `start`
from torch import Tensor, nn
from toy import ToyData, ToyTask

from twore.seeds import derive_seed
from twore.study import Store, Study, load_study, save_study
from twore.training import loop

DENSE, FINE = 16, 8  # batch sizes: by them the data tell dense training from fine-tuning
PATIENCE = 300.0  # seconds: a test that needs them has failed


@dataclass(frozen=True)
class WatchedTask(ToyTask):
    """The toy task; what the environment names happens in its dense runs (see WatchedData) and is part of no key."""

    channelwise: bool = True

    def load(self, folder: Path | None, device: torch.device) -> ToyData:
        if multiprocessing.parent_process() is not None:  # a worker of a test: no other test is in its process
            loop.SAVE_EVERY = float(os.environ.get("TOY_SAVE_EVERY", loop.SAVE_EVERY))
        return WatchedData(self, device)

    def build(self) -> nn.Module:
        model = super().build()
        model.channelwise = self.channelwise  # type: ignore[assignment]
        return model


class WatchedData(ToyData):
    """Data whose epochs are logged: TOY_LOG names the file.

    TOY_WAIT    folder: the last dense epoch is given out when there is a file in it
    TOY_DIE     file: unless it is there, the process is killed in the middle of the third dense epoch
    """

    def epoch(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        if batch_size == DENSE:
            with Path(os.environ.get("TOY_LOG", os.devnull)).open("a") as log:
                log.write(f"{os.getpid()} {seed}\n")
            if seed in orders(3) and "TOY_WAIT" in os.environ:
                _wait_for(Path(os.environ["TOY_WAIT"]))
        for number, batch in enumerate(super().epoch(batch_size, seed)):
            yield batch
            if batch_size == DENSE and number == 1 and seed in orders(2):
                _die_once(os.environ.get("TOY_DIE"))


def orders(done: int) -> list[int]:
    """Seed of the data order of the dense runs 0, 1 and 2 when they have so many epochs behind them."""
    return [derive_seed("dense", seed, "order", done) for seed in (0, 1, 2)]


def _wait_for(folder: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not list(folder.glob("*/*.json")):
        if time.monotonic() > until:
            raise TimeoutError(f"nothing came to {folder}")
        time.sleep(0.02)


def _die_once(mark: str | None) -> None:
    if mark and not Path(mark).exists():
        assert multiprocessing.parent_process() is not None, "only a worker may die here"
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def two_stacks(study: Study, seeds: tuple[int, ...] = (0, 1, 2), **task: Any) -> Study:
    """Dense runs in stacks of two, checkpoints of epochs 0, 2 and 4, a cell a checkpoint and fine-tune seed."""
    numerics = replace(study.numerics, dense_stack=2)
    fine = replace(study.finetune, batch_size=FINE)
    return replace(
        study, task=WatchedTask(**task), finetune=fine, numerics=numerics, dense_seeds=seeds, ratios=(0.5,)
    )  # fmt: skip


def log_of(path: Path) -> list[tuple[int, int]]:
    """(process, seed of the data order) of each dense epoch of each model."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), int(seed)) for pid, seed in map(str.split, lines)]


def tidy(out: Path) -> None:
    store = Store(out)
    assert not list((store.root / "running").iterdir()) and not list(store.claims.iterdir())
    assert not (out / "failures.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("channelwise", [True, False])
def test_two_workers_make_the_tables_of_a_serial_run(toy_study: Study, tmp_path: Path, channelwise: bool) -> None:
    study = two_stacks(toy_study, channelwise=channelwise)  # two stacks: the third run, and its copy
    assert len(run(study, tmp_path / "serial").cells) == 12
    run(study, tmp_path / "two", executor="process", workers=2)
    assert tables(tmp_path / "two") == tables(tmp_path / "serial")
    tidy(tmp_path / "two")


@pytest.mark.slow
def test_cells_of_early_checkpoints_are_done_while_their_stack_trains(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last dense epoch waits for a cell: without one this would never end."""
    study, out = two_stacks(toy_study, seeds=(0, 1)), tmp_path / "two"
    run(study, tmp_path / "serial")
    monkeypatch.setenv("TOY_WAIT", str(out / "store/cells"))
    results = run(study, out, executor="process", workers=2)
    assert results.failures.empty and tables(out) == tables(tmp_path / "serial")
    store, resolved = Store(out), load_study(out / "study.yaml")
    first = min(path.stat().st_mtime_ns for path in (out / "store/cells").glob("*/*.json"))
    for trajectory in resolved.trajectories:
        early, last = (store.checkpoint(trajectory.key, epoch).stat().st_mtime_ns for epoch in (2, 4))
        assert early < first < last
        assert first < store.path("trajectories", trajectory.key).stat().st_mtime_ns


@pytest.mark.slow
@pytest.mark.parametrize("saved", [True, False])
def test_a_worker_killed_in_a_dense_stack_is_replaced(
    toy_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], saved: bool
) -> None:
    study, out, log = two_stacks(toy_study, seeds=(0, 1)), tmp_path / "two", tmp_path / "log"
    run(study, tmp_path / "serial")
    monkeypatch.setenv("TOY_LOG", str(log))
    monkeypatch.setenv("TOY_DIE", str(tmp_path / "died"))
    monkeypatch.setenv("TOY_SAVE_EVERY", "-1" if saved else "60")
    results = run(study, out, executor="process", workers=2)
    assert (tmp_path / "died").exists() and results.failures.empty
    assert "was killed by signal 9" in capsys.readouterr().err
    assert tables(out) == tables(tmp_path / "serial")
    tidy(out)
    seen = log_of(log)
    killed = [seed for pid, seed in seen if pid == seen[0][0]]
    again = [seed for pid, seed in seen if pid != seen[0][0]]
    assert len(killed) == 2 * 3 and len(set(killed)) == 6  # in its third epoch
    assert again[:2] == killed[4:] if saved else again[:6] == killed
    assert len(again) == 2 * (2 if saved else 4)


@pytest.mark.slow
def test_a_killed_driver_and_its_workers_are_resumed(
    toy_study: Study,
    tmp_path: Path,
    start: Any,  # noqa: F811  the fixture
) -> None:
    study, out = two_stacks(toy_study), tmp_path / "two"
    run(study, tmp_path / "serial")
    out.mkdir()
    save_study(study, out / "study.yaml")
    log, epochs = tmp_path / "log", tmp_path / "epochs"
    options = {"TOY_LOG": str(epochs), "TOY_SAVE_EVERY": "-1"}
    process = start(out, log=log, **options, TOY_WAIT=str(tmp_path / "nothing"))  # neither stack comes to its end
    workers: list[int] = []
    until = time.monotonic() + PATIENCE
    while not {orders(3)[0], orders(3)[2]} <= {seed for _, seed in log_of(epochs)}:  # the first run of each stack
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        workers = children(process.pid) or workers
        time.sleep(0.02)
    for pid in (process.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    store = Store(out)
    assert len(list((store.root / "running").glob("*.safetensors"))) == 2
    assert not list((store.root / "trajectories").glob("*.json"))
    before = len(log_of(epochs))
    assert start(out, log=log, workers=1, **options).wait(PATIENCE) == 0
    assert tables(out) == tables(tmp_path / "serial")
    tidy(out)
    again = {seed for _, seed in log_of(epochs)[before:]}
    assert again == set(orders(3))  # three epochs of both stacks were behind them
