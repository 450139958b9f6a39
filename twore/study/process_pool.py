"""Worker processes of this machine.

A worker computes with the study's thread count, sees one GPU where there are several, leaves Ctrl-C and SIGTERM to the
driver, and ends when its driver is gone. Each has its own pipe, so one that dies takes one job with it and no other.
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
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from twore.study.outcomes import THREAD_VARIABLES, Died, TooLong, prepare_worker
from twore.study.signals import HANDLED

ABANDON = signal.SIGUSR1  # tells a worker to leave its job: what it writes just then is cleaned up
ABANDON_SECONDS, END_SECONDS = 2.0, 10.0  # to leave a job; to leave when idle; a worker that does not is killed


class ProcessPool:
    """Worker processes on this machine; on a machine with several GPUs they take turns over them."""

    words = problem = ""

    def __init__(self, workers: int, threads: int, time_limit: float | None = None, gpus: tuple[str, ...] = ()) -> None:
        given = [gpus[number % len(gpus)] if gpus else None for number in range(workers)]
        self._workers = [_Worker(number, threads, gpu) for number, gpu in enumerate(given)]
        self._limit, self._started = time_limit, False

    @property
    def free(self) -> int:
        """Workers without a job."""
        return sum(worker.job is None for worker in self._workers)

    @property
    def busy(self) -> int:
        """Workers with a job."""
        return len(self._workers) - self.free

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Start `work(*args)` in a free worker. With the first job all workers start, and import what it needs: that
        takes seconds, which they have while the first dense run trains."""
        next(worker for worker in self._workers if worker.job is None).begin(job, work, args)
        for worker in [] if self._started else self._workers:
            if worker.job is None:  # one with a job that is dead already is for wait() to find
                worker.start((work, args))
        self._started = True

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
                process = worker.process
                if process is not None and not worker.used:
                    process.kill()  # it may still be importing, which takes seconds
                if worker.pipe is not None:
                    worker.pipe.close()  # an idle worker reads its end, and ends
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
    """One worker process: started with the pool's first job, and again with its next one after it died."""

    def __init__(self, number: int, threads: int, gpu: str | None) -> None:
        self.number, self.threads, self.gpu = number, threads, gpu
        self.job: Any = None
        self.used = False  # it has had a job
        self.since: float | None = None  # on the monotonic clock: when it began the job
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None

    @property
    def seconds(self) -> float:
        """For how long it works on its job; what it takes a new process to start does not count."""
        return 0.0 if self.job is None or self.since is None else time.monotonic() - self.since

    def begin(self, job: Any, work: Callable[..., Any], args: tuple) -> None:
        """Give it a job."""
        pipe = self.start((work, args))
        self.job, self.since, self.used = job, None, True
        with suppress(OSError):  # it died just now: its pipe ends, which wait() sees
            pipe.send((work, args))

    def start(self, like: tuple) -> Connection:
        """Start its process, unless that lives; our end of its pipe. like: work as it will get; it imports what that
        needs."""
        if self.process is None or self.pipe is None or not self.process.is_alive():
            with _held_signals():
                self.pipe, self.process = _start(self.number, self.threads, self.gpu)
            with suppress(OSError):
                self.pipe.send(like)
        return self.pipe

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


def _start(number: int, threads: int, gpu: str | None) -> tuple[Connection, SpawnProcess]:
    """Start a worker process; our end of its pipe, and the process."""
    context = multiprocessing.get_context("spawn")
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))  # read by its libraries when they are first imported
    if gpu is not None:
        variables["CUDA_VISIBLE_DEVICES"] = gpu
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads), name=f"twore-worker-{number}")
    try:
        with _environment(variables):
            process.start()
    finally:
        theirs.close()
    return ours, process


@contextmanager
def _held_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM come after the with block: the driver knows the process it starts there, and can end it. The
    process inherits that, so that a Ctrl-C while it starts is not its own."""
    resource_tracker.ensure_running()  # before the mask, which it would lift
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


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
    """The life of a worker: (work, args) in; (False, None) at its beginning and (True, its value) at its end out. With
    the first that comes it does nothing but import what it takes."""
    for name in HANDLED:
        signal.signal(name, signal.SIG_IGN)
    signal.signal(ABANDON, lambda *_: sys.exit(1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    prepare_worker(threads)
    begun = False
    while True:
        try:
            work, args = pipe.recv()
            if begun:
                pipe.send((False, None))
        except (EOFError, ConnectionError):  # the driver left; the second, where it had not taken our last answer
            signal.signal(ABANDON, signal.SIG_IGN)  # it is leaving already
            return
        if not begun:
            begun = True
            continue
        value = work(*args)
        with suppress(ConnectionError):  # as above, which the next round finds
            pipe.send((True, value))


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
    os._exit(1)  # the driver is gone: nobody waits for this worker's answer
