"""Where jobs run: in this process, in worker processes of this machine (twore.study.process_pool), or on a Ray cluster
(twore.study.ray_pool).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from twore.study.process_pool import ProcessPool
from twore.study.ray_pool import RayPool, Seat, import_ray
from twore.training.numerics import Numerics, use_threads

EXECUTORS = ("process", "serial", "ray")


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

    @property
    def problem(self) -> str:
        """Why nobody works though there are jobs, in one sentence, when that has lasted; else empty."""

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Start `work(*args)`."""

    def wait(self, timeout: float) -> list[tuple[Any, Any]]:
        """Wait up to `timeout` seconds for something to end: (job, what its work returned, or Died, or TooLong)."""

    def stop(self, *, now: bool) -> None:
        """End the workers; `now`: their jobs, too."""


class Serial:
    """One job at a time, in this process."""

    words = problem = ""

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
        seat = Seat(numerics.threads, 1 / (slots or 1) if on_gpu else 0.0)
        return RayPool(folder, workers=workers, seat=seat, address=ray_address, time_limit=time_limit)
    gpus = visible_gpus() if on_gpu else ()
    count = workers or 1
    return ProcessPool(min(count, slots * len(gpus)) if slots and gpus else count, numerics.threads, time_limit, gpus)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them; empty when there is none."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",") if named else map(str, range(count)))[:count]
