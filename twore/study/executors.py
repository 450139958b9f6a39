"""Where jobs run: in this process, or in worker processes of this machine.

A worker computes with the study's thread count, leaves Ctrl-C and SIGTERM to the driver, and ends when its driver is
gone. Each has its own pipe, so a worker that dies takes one job with it and no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

import torch

from twore.study.signals import HANDLED
from twore.training.numerics import use_threads

EXECUTORS = ("process", "serial")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ABANDON = signal.SIGUSR1  # tells a worker to leave its job: what it writes just then is cleaned up
ABANDON_SECONDS, END_SECONDS = 2.0, 10.0  # to leave a job; to leave when idle; a worker that does not is killed


@dataclass(frozen=True)
class Died:
    """In place of a job's result: its worker process ended in the middle."""

    words: str


@dataclass(frozen=True)
class TooLong:
    """In place of a job's result: it ran longer than the time limit, and its worker was killed."""

    words: str


class Executor(Protocol):
    """Runs functions, several at a time. A job is whatever names the work; equal jobs do not run at the same time."""

    @property
    def free(self) -> int:
        """How many more can be submitted now."""

    @property
    def busy(self) -> int:
        """How many are running."""

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Start `work(*args)`."""

    def wait(self, timeout: float) -> list[tuple[Any, Any]]:
        """Wait up to `timeout` seconds for something to end: (job, what its work returned, or Died, or TooLong)."""

    def stop(self, *, now: bool) -> None:
        """End the workers; `now`: their jobs, too."""


class Serial:
    """One job at a time, in this process."""

    def __init__(self, threads: int) -> None:
        use_threads(threads)
        self._next: tuple[Any, Callable[..., Any], tuple] | None = None

    @property
    def free(self) -> int:
        """1 or 0."""
        return int(self._next is None)

    @property
    def busy(self) -> int:
        """1 or 0."""
        return int(self._next is not None)

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Remember the job; it runs in `wait`."""
        self._next = (job, work, args)

    def wait(self, timeout: float) -> list[tuple[Any, Any]]:
        """Run the job that was submitted, however long it takes."""
        if self._next is None:
            return []
        (job, work, args), self._next = self._next, None
        return [(job, work(*args))]

    def stop(self, *, now: bool) -> None:
        """Nothing runs."""


class ProcessPool:
    """Worker processes on this machine; on a machine with several GPUs they take turns over them."""

    def __init__(self, workers: int, threads: int, time_limit: float | None = None) -> None:
        self._workers = [_Worker(number, threads) for number in range(workers)]
        self._limit = time_limit

    @property
    def free(self) -> int:
        """Workers without a job."""
        return sum(worker.job is None for worker in self._workers)

    @property
    def busy(self) -> int:
        """Workers with a job."""
        return len(self._workers) - self.free

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Start `work(*args)` in a free worker."""
        next(worker for worker in self._workers if worker.job is None).begin(job, work, args)

    def wait(self, timeout: float) -> list[tuple[Any, Any]]:
        """What ended, after at most `timeout` seconds."""
        working = {worker.pipe: worker for worker in self._workers if worker.job is not None and worker.pipe}
        ended = []
        for pipe in connection.wait(list(working), timeout):
            worker = working[pipe]  # type: ignore[index]
            try:
                done, value = worker.pipe.recv()  # type: ignore[union-attr]
            except (EOFError, OSError):
                ended.append(worker.end(Died(worker.bury())))
                continue
            if done:
                ended.append(worker.end(value))
            else:
                worker.since = time.monotonic()
        for worker in working.values():
            if self._limit is not None and worker.seconds > self._limit:
                worker.process.kill()  # type: ignore[union-attr]
                worker.bury()
                ended.append(worker.end(TooLong(f"the time limit of {self._limit:g} s")))
        return ended

    def stop(self, *, now: bool) -> None:
        """End the workers; `now`: they leave what they are doing. None is left afterwards."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        try:
            for worker in self._workers:
                if worker.pipe is not None:
                    worker.pipe.close()  # an idle worker reads its end, and ends
                process = worker.process
                if now and worker.job is not None and process is not None and process.is_alive() and process.pid:
                    os.kill(process.pid, ABANDON)
            until = time.monotonic() + (ABANDON_SECONDS if now else END_SECONDS)
            for process in processes:
                process.join(max(0.0, until - time.monotonic()))
        finally:
            for process in processes:
                process.kill()  # safe at any moment: results appear whole or not at all
                process.join()


class _Worker:
    """One worker process: started with its first job, and again with the next one after it died."""

    def __init__(self, number: int, threads: int) -> None:
        self.number, self.threads = number, threads
        self.job: Any = None
        self.since: float | None = None  # on the monotonic clock: when it began the job
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None

    @property
    def seconds(self) -> float:
        """For how long it works on its job; what it takes a new process to start does not count."""
        return 0.0 if self.job is None or self.since is None else time.monotonic() - self.since

    def begin(self, job: Any, work: Callable[..., Any], args: tuple) -> None:
        """Give it a job."""
        if self.process is None or self.pipe is None or not self.process.is_alive():
            self.pipe, self.process = _start(self.number, self.threads)
        self.job, self.since = job, None
        with suppress(OSError):  # it died just now: its pipe ends, which wait() sees
            self.pipe.send((work, args))

    def end(self, result: Any) -> tuple[Any, Any]:
        """Make it free; returns its job and the result."""
        job, self.job, self.since = self.job, None, None
        return job, result

    def bury(self) -> str:
        """Collect a process that died; how it died, in words."""
        process, self.process, pipe, self.pipe = self.process, None, self.pipe, None
        if process is None or pipe is None:
            return "was gone"
        process.join(END_SECONDS)  # its pipe may end a little before it
        process.kill()
        process.join()
        pipe.close()
        code = process.exitcode or 0
        if code >= 0:
            return f"ended with status {code} (what it said last is above)"
        return f"was killed by signal {-code}" + (" (out of memory? fewer --workers need less)" if code == -9 else "")


def make_executor(name: str, workers: int, threads: int, time_limit: float | None = None) -> Executor:
    """The executor by its name. ValueError for an unknown one, fewer than one worker, or a limit it cannot keep."""
    if name not in EXECUTORS:
        raise ValueError(f"executor is one of {', '.join(EXECUTORS)}: got {name!r}")
    if workers < 1:
        raise ValueError(f"workers is at least 1: got {workers}")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit is a number of seconds above 0: got {time_limit}")
    if time_limit is not None and name == "serial":
        raise ValueError("a time limit needs worker processes that can be ended: use --executor process")
    return Serial(threads) if name == "serial" else ProcessPool(workers, threads, time_limit)


def _start(number: int, threads: int) -> tuple[Connection, SpawnProcess]:
    """Start a worker process; our end of its pipe, and the process."""
    context = multiprocessing.get_context("spawn")
    for name in THREAD_VARIABLES:  # read by the worker's libraries when they are first imported
        os.environ[name] = str(threads)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, number, threads), name=f"twore-worker-{number}")
    resource_tracker.ensure_running()  # before the mask, which it would lift
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # inherited: a Ctrl-C while it starts is not the worker's
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    return ours, process


def _serve(pipe: Connection, number: int, threads: int) -> None:
    """The life of a worker: (work, args) in; (False, None) at its beginning and (True, its value) at its end out."""
    for name in HANDLED:
        signal.signal(name, signal.SIG_IGN)
    signal.signal(ABANDON, lambda *_: sys.exit(1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    use_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    while True:
        try:
            work, args = pipe.recv()
        except EOFError:
            signal.signal(ABANDON, signal.SIG_IGN)  # it is leaving already
            return
        pipe.send((False, None))
        pipe.send((True, work(*args)))


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
    os._exit(1)  # the driver is gone: nobody waits for this worker's answer
