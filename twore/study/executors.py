"""Where jobs run: in this process, in worker processes of this machine, or on a Ray cluster (twore.study.ray_pool).

A worker process computes with the study's thread count, sees one GPU where there are several, leaves Ctrl-C and
SIGTERM to the driver, and ends when its driver is gone. Each has its own pipe, so a worker that dies takes one job with
it and no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

import torch

from twore.study.signals import HANDLED
from twore.training.numerics import Numerics, use_threads

EXECUTORS = ("process", "serial", "ray")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ABANDON = signal.SIGUSR1  # tells a worker to leave its job: what it writes just then is cleaned up
ABANDON_SECONDS, END_SECONDS = 2.0, 10.0  # to leave a job; to leave when idle; a worker that does not is killed


@dataclass(frozen=True)
class Died:
    """In place of a job's result: its worker process ended in the middle."""

    words: str
    own: bool = True  # it may have been the job's own doing; False: its machine was lost


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

    @property
    def words(self) -> str:
        """Who works, in a few words for the progress bar; may be empty."""

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Start `work(*args)`."""

    def wait(self, timeout: float) -> list[tuple[Any, Any]]:
        """Wait up to `timeout` seconds for something to end: (job, what its work returned, or Died, or TooLong)."""

    def stop(self, *, now: bool) -> None:
        """End the workers; `now`: their jobs, too."""


class Serial:
    """One job at a time, in this process."""

    words = ""

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

    words = ""

    def __init__(self, workers: int, threads: int, time_limit: float | None = None, gpus: tuple[str, ...] = ()) -> None:
        given = [gpus[number % len(gpus)] if gpus else None for number in range(workers)]
        self._workers = [_Worker(number, threads, gpu) for number, gpu in enumerate(given)]
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

    def __init__(self, number: int, threads: int, gpu: str | None) -> None:
        self.number, self.threads, self.gpu = number, threads, gpu
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
            self.pipe, self.process = _start(self.number, self.threads, self.gpu)
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


def check_options(name: str, workers: int | None, time_limit: float | None, slots: int | None) -> None:
    """ValueError in one sentence for an unknown executor, a number that makes no sense, or a limit it cannot keep;
    ModuleNotFoundError for `ray` where it is not installed."""
    if name not in EXECUTORS:
        raise ValueError(f"executor is one of {', '.join(EXECUTORS)}: got {name!r}")
    if workers is None and name != "ray":
        raise ValueError("workers is a number: only a Ray cluster says by itself how many it has room for")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is at least 1: got {workers}")
    if slots is not None and slots < 1:
        raise ValueError(f"slots is at least 1 worker a GPU: got {slots}")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit is a number of seconds above 0: got {time_limit:g}")
    if time_limit is not None and name == "serial":
        raise ValueError("a time limit needs worker processes that can be ended: use --executor process")
    if name == "ray":
        from twore.study.ray_pool import import_ray

        import_ray()


def make_executor(
    name: str,
    folder: Path,
    numerics: Numerics,
    *,
    workers: int | None = 1,
    slots: int | None = None,
    ray_address: str | None = None,
    time_limit: float | None = None,
) -> Executor:
    """The executor by its name, for a study whose numerics are resolved, in a run folder; errors as check_options.

    workers: None for as many as a Ray cluster has room for. slots: workers that share one GPU: without it any number on
    this machine, and one with Ray. ray_address: of a running cluster; None: RAY_ADDRESS, else a new one for this run.
    """
    check_options(name, workers, time_limit, slots)
    on_gpu = numerics.device == "cuda"
    if name == "serial":
        return Serial(numerics.threads)
    if name == "ray":
        from twore.study.ray_pool import RayPool, Seat

        seat = Seat(numerics.threads, 1 / (slots or 1) if on_gpu else 0.0)
        return RayPool(folder, workers=workers, seat=seat, address=ray_address, time_limit=time_limit)
    gpus = visible_gpus() if on_gpu else ()
    count = workers or 1
    return ProcessPool(min(count, slots * len(gpus)) if slots and gpus else count, numerics.threads, time_limit, gpus)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them; empty when there is none."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",") if named else map(str, range(count)))[:count]


def _start(number: int, threads: int, gpu: str | None) -> tuple[Connection, SpawnProcess]:
    """Start a worker process; our end of its pipe, and the process."""
    context = multiprocessing.get_context("spawn")
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))  # read by its libraries when they are first imported
    if gpu is not None:
        variables["CUDA_VISIBLE_DEVICES"] = gpu
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads), name=f"twore-worker-{number}")
    resource_tracker.ensure_running()  # before the mask, which it would lift
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # inherited: a Ctrl-C while it starts is not the worker's
    try:
        with _environment(variables):
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    return ours, process


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for what starts inside the with block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, threads: int) -> None:
    """The life of a worker: (work, args) in; (False, None) at its beginning and (True, its value) at its end out."""
    for name in HANDLED:
        signal.signal(name, signal.SIG_IGN)
    signal.signal(ABANDON, lambda *_: sys.exit(1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    use_threads(threads)
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
