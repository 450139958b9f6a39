"""Where jobs run: in this process, or in a local pool of worker processes.

A worker computes with the study's thread count, ignores Ctrl-C (the driver decides), and ends when its driver is gone.
A worker that dies takes its job with it: the pool is rebuilt and the job tried again, MAX_ATTEMPTS times in all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Protocol

import torch

EXECUTORS = ("process", "serial")
MAX_ATTEMPTS = 3
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Executor(Protocol):
    """Runs functions, `slots` at a time."""

    slots: int

    def submit(self, work: Callable[..., Any], *args: Any) -> Future:
        """Start `work(*args)`."""

    def restart(self) -> None:
        """Replace broken workers."""

    def stop(self, *, now: bool) -> None:
        """Let running work finish, or end it now."""


class Serial:
    """One job at a time, in this process."""

    slots = 1

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def submit(self, work: Callable[..., Any], *args: Any) -> Future:
        """Run `work(*args)` here and now."""
        future: Future = Future()
        future.set_result(work(*args))  # work reports its own errors; Ctrl-C passes through
        return future

    def restart(self) -> None:
        """Nothing can break."""

    def stop(self, *, now: bool) -> None:
        """Nothing runs."""


class ProcessPool:
    """`slots` worker processes on this machine; on a machine with several GPUs they take turns over them."""

    def __init__(self, workers: int, threads: int) -> None:
        self.slots, self.threads = workers, threads
        self._pool = self._start()

    def submit(self, work: Callable[..., Any], *args: Any) -> Future:
        """Start `work(*args)` in a free worker."""
        return self._pool.submit(work, *args)

    def restart(self) -> None:
        """Replace all workers after one died."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._start()

    def stop(self, *, now: bool) -> None:
        """End the workers."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=not now, cancel_futures=True)
        if now:
            for process in processes:
                process.kill()  # safe at any moment: results appear whole or not at all

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        for name in THREAD_VARIABLES:  # read by the workers' libraries when they are first imported
            os.environ[name] = str(self.threads)
        arguments = (self.threads, os.getpid(), context.Value("i", 0))
        return ProcessPoolExecutor(self.slots, context, initializer=_start_worker, initargs=arguments)


def make_executor(name: str, workers: int, threads: int) -> Executor:
    """The executor by its name. ValueError for an unknown one or fewer than one worker."""
    if name not in EXECUTORS:
        raise ValueError(f"executor is one of {', '.join(EXECUTORS)}: got {name!r}")
    if workers < 1:
        raise ValueError(f"workers is at least 1: got {workers}")
    return Serial(threads) if name == "serial" else ProcessPool(workers, threads)


def _start_worker(threads: int, driver: int, started: Synchronized) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(1.0)
    os._exit(1)  # the driver was killed: nobody waits for this worker's answer
