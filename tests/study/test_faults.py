"""Faults, each injected: memory, disk, signals, clocks, workers that die or hang. What is done stays; what is left is
finished by the same call, with the same numbers.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_kill import alive, children
from test_run import run
from test_shards import start_fixture, tables  # noqa: F401  the fixture `start`
from toy import ToyData, ToyTask

from twore import files
from twore.study import Store, process_pool, run_study, save_study, stages
from twore.study.claims import Claims
from twore.study.executors import check_options
from twore.study.faults import FolderError, folder_problem
from twore.study.process_pool import ProcessPool
from twore.study.progress import Bar
from twore.study.signals import StoppedError, stop_signals

PATIENCE = 900.0  # seconds: a test that needs them has failed


@dataclass(frozen=True)
class FaultyTask(ToyTask):
    """The toy task, with a fault in training; TOY_PAUSE slows every epoch down without being part of any key."""

    setting_fields: ClassVar[tuple[str, ...]] = ("hidden", "fault")
    fault: str = ""

    def load(self, folder: Path | None, device: torch.device) -> FaultyData:
        return FaultyData(self, device)


class FaultyData(ToyData):
    def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
        time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
        FAULTS[self.task.fault]()
        yield from super().epoch(batch_size, seed)


def _raise(error: BaseException) -> None:
    raise error


def _die() -> None:
    assert multiprocessing.parent_process() is not None, "only a worker may die here"
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once() -> None:
    try:
        Path(os.environ["TOY_DIED"]).touch(exist_ok=False)
    except FileExistsError:
        return
    _die()


def _full_disk() -> None:
    files.os = _FullDisk()  # in a worker of its own


class _FullDisk:
    """The os module on a full disk: nothing reaches it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, _descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FAULTS = {
    "": lambda: None,
    "memory": lambda: _raise(MemoryError()),
    "gpu memory": lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "cpu memory": lambda: torch.empty(2**60),
    "die": _die,
    "die once": _die_once,
    "hang": lambda: time.sleep(10**6),
    "full disk": _full_disk,
}


def with_faults(study, *names: str):
    """One dense seed of the study, a setting for each fault."""
    settings = tuple({"task.fault": name} for name in names)
    return replace(study, task=FaultyTask(), settings=settings, dense_seeds=(0,))


# --- memory


@pytest.mark.parametrize("fault", ["memory", "gpu memory", "cpu memory"])
def test_out_of_memory_fails_the_job_with_a_hint_and_no_other(toy_study, tmp_path, fault):
    results = run(with_faults(toy_study, fault, ""), tmp_path)
    assert results.failures["reason"].str.startswith("out of memory: fewer --workers").all()
    assert len(results.failures) == 1
    assert len(results.cells) == 8


def test_only_what_failed_is_tried_again(toy_study, tmp_path, monkeypatch):
    """Two groups failed; another group and a dense run are not done, but did not fail."""
    study = replace(toy_study, data_fingerprint="toy-48")
    first, second = study.trajectories
    groups = list(first.groups())
    real = stages.fine_tuned_group

    def broken(context, group):
        if group.pairs_key in (groups[0].pairs_key, groups[1].pairs_key):
            raise RuntimeError("not today")
        real(context, group)

    with monkeypatch.context() as patched:
        patched.setattr("twore.study.run.fine_tuned_group", broken)
        assert len(run(replace(study, dense_seeds=(0,)), tmp_path).failures) == 2
    store = Store(tmp_path)
    for key in groups[2].cell_keys.values():
        store.drop("cells", key)
    results = run(study, tmp_path, only_failed=True)
    assert results.failures.empty
    assert len(results.cells) == 6
    assert second.key not in store.keys("trajectories")
    assert len(run(study, tmp_path).cells) == 16


# --- disk


def break_writes(monkeypatch, after: int, code: int) -> None:
    """From the nth write on, nothing reaches the disk."""
    left = [after]
    fsync = os.fsync

    def broken(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", broken)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "no space is left"), (errno.EROFS, "no longer be written")])
@pytest.mark.parametrize("after", [0, 1, 4, 20])
def test_a_full_or_closed_disk_stops_the_run_in_one_sentence(
    toy_study, tmp_path, monkeypatch, capsys, code, words, after
):
    run(toy_study, tmp_path / "serial")
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        break_writes(patched, after, code)
        with pytest.raises(FolderError, match=words) as caught:
            run(toy_study, out)
    assert "\n" not in str(caught.value)
    assert "failed:" not in capsys.readouterr().err  # not one line for each job that is left
    assert not list(out.rglob("*.tmp"))
    assert not list(Store(out).claims.iterdir())
    for path in out.rglob("*.json"):
        files.read_record(path)
    run(toy_study, out)
    assert tables(out) == tables(tmp_path / "serial")


def test_only_what_concerns_the_folder_stops_a_run(tmp_path):
    inside, outside = str(tmp_path / "store" / "x"), "/elsewhere/data"
    assert folder_problem(PermissionError(errno.EACCES, "no", inside), tmp_path)
    assert folder_problem(OSError(errno.EDQUOT, "quota", inside), tmp_path)
    assert folder_problem(PermissionError(errno.EACCES, "no", outside), tmp_path) is None
    assert folder_problem(FileNotFoundError(errno.ENOENT, "no", inside), tmp_path) is None
    assert folder_problem(ValueError("no"), tmp_path) is None


def test_what_a_killed_writer_left_is_swept_when_nobody_else_works_here(toy_study, tmp_path):
    study = replace(toy_study, dense_seeds=(0,), ratios=(0.3,))
    run(study, tmp_path)
    store = Store(tmp_path)
    litter = store.root / "cells" / ".x.json.0123abcd.tmp"
    litter.write_text("half")
    store.put("running", "x", {"what": "a job that was killed"})
    with Claims(store.claims) as other:
        other.announce()
        run(study, tmp_path)
        assert litter.exists()
    run(study, tmp_path)
    assert not litter.exists()
    assert not store.keys("running")


def test_a_broken_checkpoint_is_trained_again_once(toy_study, tmp_path, caplog):
    study = replace(toy_study, dense_seeds=(0,))
    run(study, tmp_path)
    before, store = tables(tmp_path), Store(tmp_path)
    trajectory = replace(study, data_fingerprint="toy-48").trajectories[0]
    path = store.checkpoint(trajectory.key, 2)
    path.write_bytes(path.read_bytes()[:100])
    for key in store.keys("cells"):
        store.drop("cells", key)
    with caplog.at_level(logging.WARNING, "twore"):
        run(study, tmp_path)
    assert caplog.text.count("set aside") == 1
    assert tables(tmp_path) == before


# --- signals


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as at a terminal: background jobs of a shell begin with it ignored, which a run respects."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_serial_run_in_good_order(toy_study, tmp_path, monkeypatch, number, status):
    run(toy_study, tmp_path / "serial")
    out, epochs, epoch = tmp_path / "out", [], ToyData.epoch
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def interrupted(self, batch_size, seed):
        epochs.append(seed)
        if len(epochs) == 14:  # two dense runs of 4 epochs, then in the 4th cell
            signal.raise_signal(number)
        yield from epoch(self, batch_size, seed)

    with monkeypatch.context() as patched:
        patched.setattr(ToyData, "epoch", interrupted)
        with pytest.raises(StoppedError) as caught:
            run(toy_study, out)
    assert caught.value.status == status
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(tables(out)["results.csv"].splitlines()) == 1 + 2
    assert not list(Store(out).claims.iterdir())
    assert not list(out.rglob("*.tmp"))
    run(toy_study, out)
    assert tables(out) == tables(tmp_path / "serial")


@pytest.mark.usefixtures("ctrl_c")
def test_the_first_signal_asks_and_the_second_stops():
    with stop_signals() as stop:
        stop.at_once = False
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        assert not stop.overdue
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGINT)
        assert stop.twice
        with pytest.raises(StoppedError) as caught:
            stop.check()
        assert caught.value.status == 143  # the first one counts


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGINT, before)


# --- clocks


def test_a_clock_that_runs_backwards_changes_nothing(toy_study, tmp_path, monkeypatch):
    run(toy_study, tmp_path / "serial")
    now = [2e9]

    def backwards() -> float:
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    results = run(toy_study, tmp_path / "out")
    assert (results.cells["seconds"] >= 0).all()
    assert (results.cells["seconds"] < PATIENCE).all()
    assert tables(tmp_path / "out") == tables(tmp_path / "serial")


def test_the_bar_keeps_its_own_time(tmp_path, monkeypatch):
    now = [2e9]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = Bar(10, 2, Store(tmp_path), quiet=False)
    now[0] -= 3600.0
    bar.reach(5)
    assert 0 <= bar._bar.format_dict["elapsed"] < PATIENCE
    assert bar._bar.n == 5
    bar.close()


# --- workers


@pytest.mark.parametrize(
    ("name", "workers", "limit", "words"),
    [
        ("serial", 1, 5.0, "process"),
        ("process", 1, 0.0, "above 0"),
        ("process", 0, None, "at least 1"),
        ("x", 1, None, "x"),
    ],
)
def test_an_executor_that_cannot_be_is_refused(name, workers, limit, words):
    with pytest.raises(ValueError, match=words):
        check_options(name, workers, limit, slots=None)


def _identity() -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


@pytest.mark.slow
def test_a_pool_leaves_no_process_behind():
    pool = ProcessPool(2, threads=1)
    pool.submit("a", _identity)
    pool.submit("b", time.sleep, 10**6)
    ended = []
    while not ended:
        ended = pool.wait(PATIENCE)
    [(job, (pid, threads))] = ended
    assert (job, threads, pool.free, pool.busy) == ("a", 1, 1, 1)
    assert alive(pid)
    pids = children(os.getpid())
    pool.stop(now=True)
    assert not alive(pid)
    assert [p for p in pids if alive(p) and "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()] == []


@pytest.mark.slow
def test_a_worker_without_a_job_so_far_is_not_waited_for(monkeypatch):
    """It may be importing still; one that had a job is let go by itself."""
    monkeypatch.setattr(process_pool, "END_SECONDS", PATIENCE)  # a busy machine may need more than usual
    pool = ProcessPool(2, threads=1)
    pool.submit("a", _identity)
    while not pool.wait(PATIENCE):
        pass
    processes = [worker.process for worker in pool._workers]
    pool.stop(now=False)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]


@pytest.mark.slow
def test_workers_that_die_or_hang_harm_no_other_job(toy_study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOY_DIED", str(tmp_path / "died"))
    study = with_faults(toy_study, "", "die", "hang", "die once", "memory")
    results = run_study(study, tmp_path / "out", workers=2, quiet=True, time_limit=10)
    said = capsys.readouterr().err
    failures = {row.job.split("fault=")[1].split(" seed")[0]: row for row in results.failures.itertuples()}
    assert set(failures) == {"die", "hang", "memory"}
    assert "was killed by signal 9" in failures["die"].reason
    assert failures["die"].reason.endswith("3 times")
    assert failures["hang"].reason == "exceeded the time limit of 10 s"
    assert all(row.attempts == 1 for row in failures.values())
    assert sorted(results.cells["fault"].fillna("").unique()) == ["", "die once"]
    assert len(results.cells) == 16
    assert said.count("starts again with") == 3  # twice the one that always dies, once the other: nobody else
    assert not list(Store(tmp_path / "out").claims.iterdir())


@pytest.mark.slow
def test_a_full_disk_under_a_worker_stops_the_run(toy_study, tmp_path, capsys):
    with pytest.raises(FolderError, match="no space is left"):
        run_study(with_faults(toy_study, "full disk", ""), tmp_path, quiet=True)
    assert "failed:" not in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("signals", "status"),
    [((signal.SIGINT,), 130), ((signal.SIGTERM,), 143), ((signal.SIGTERM, signal.SIGINT), 143)],
    ids=["Ctrl-C", "SIGTERM", "twice"],
)
def test_signals_to_a_run_with_workers(toy_study, tmp_path, start, signals, status):
    study = replace(toy_study, task=FaultyTask())
    run(study, tmp_path / "serial")
    out = tmp_path / "out"
    out.mkdir()
    save_study(study, out / "study.yaml")
    process = start(out, log=tmp_path / "log", TOY_PAUSE="1000" if len(signals) > 1 else "0.3")
    begun = "trajectories/*/data.json" if len(signals) > 1 else "cells/*/*.json"
    until = time.monotonic() + PATIENCE
    while process.poll() is None and not list((out / "store").glob(begun)) and time.monotonic() < until:
        time.sleep(0.05)
    workers = children(process.pid)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)  # two at once would be one
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "stopping" in said, "Traceback" in said) == (status, True, False), said
    assert len(workers) >= 2
    assert not [pid for pid in workers if alive(pid) and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert not list(Store(out).claims.iterdir())
    if len(signals) == 1:
        assert not list(out.rglob("*.tmp"))
        assert len(tables(out)["results.csv"].splitlines()) > 1
    run(study, out)
    assert tables(out) == tables(tmp_path / "serial")
