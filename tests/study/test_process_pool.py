"""The pool of worker processes where its workers start, die and are left in the middle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

from twore.study import process_pool
from twore.study.outcomes import Died
from twore.study.process_pool import ProcessPool

PATIENCE = 300.0  # seconds: a test that needs them has failed


class Fake:
    """A process that lives, or has ended with status 1."""

    exitcode, pid = 1, None

    def __init__(self, lives: bool) -> None:
        self.lives = lives

    def is_alive(self) -> bool:
        return self.lives

    def join(self, timeout: float | None = None) -> None:
        pass

    kill = join


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The other ends of the pipes of processes made by hand, of which the first is dead at once."""
    ends: list[Connection] = []

    def start(number: int, threads: int, gpu: str | None) -> tuple[Connection, Fake]:
        ours, theirs = multiprocessing.Pipe()
        ends.append(theirs)
        if len(ends) == 1:
            theirs.close()
        return ours, Fake(lives=len(ends) > 1)

    monkeypatch.setattr(process_pool, "_start", start)
    return ends


@pytest.mark.parametrize("workers", [1, 3])
def test_a_job_is_not_lost_with_a_worker_that_dies_while_the_others_start(made: list, workers: int) -> None:
    pool = ProcessPool(workers, threads=1)
    pool.submit("a", len, "x")
    assert len(made) == workers
    assert pool.wait(0) == [("a", Died("ended with status 1 (what it said last is above)"))]
    assert (pool.free, pool.busy) == (workers, 0)


def wait(pool: ProcessPool) -> Any:
    """The result of the only job there is."""
    until = time.monotonic() + PATIENCE
    while not (ended := pool.wait(1.0)):
        assert time.monotonic() < until
    [(_, value)] = ended
    return value


@pytest.mark.slow
def test_workers_killed_while_they_import_are_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    """One with a job is said to have died; of one without nothing is said."""
    pool = ProcessPool(2, threads=1)
    try:
        pool.submit("a", os.getpid)
        pids = [worker.process.pid for worker in pool._workers if worker.process]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert "was killed by signal 9" in wait(pool).words
        pool.submit("b", time.sleep, 10**6)
        pool.submit("c", os.getpid)
        value = wait(pool)
        assert isinstance(value, int) and value not in pids
    finally:
        pool.stop(now=True)
    assert workers_left() == []
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_signal_while_a_worker_starts_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C for the second time raises wherever the program is."""

    @contextmanager
    def interrupted(_: Any) -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process_pool, "_environment", interrupted)
    before = signal.signal(signal.SIGTERM, stop)
    pool = ProcessPool(2, threads=1)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.submit("a", os.getpid)
    finally:
        signal.signal(signal.SIGTERM, before)
        pool.stop(now=True)
    assert workers_left() == []


@pytest.mark.slow
def test_a_worker_whose_answer_nobody_takes_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process_pool, "END_SECONDS", PATIENCE)  # a busy machine may need more than usual
    pool = ProcessPool(1, threads=1)
    pool.submit("a", os.getpid)
    [worker] = pool._workers
    assert worker.pipe is not None and worker.process is not None
    assert worker.pipe.poll(PATIENCE)
    time.sleep(0.2)  # now it waits for its next job
    pool.stop(now=False)
    assert capfd.readouterr().err == ""
    assert worker.process.exitcode == 0


def workers_left() -> list[str]:
    return [child.name for child in multiprocessing.active_children() if child.name.startswith("twore-worker")]
