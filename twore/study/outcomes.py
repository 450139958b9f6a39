"""What executors share: how a job may end other than by its result, and how a worker begins."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from twore.training.numerics import use_threads

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Died:
    """In place of a job's result: its worker process ended in the middle."""

    words: str
    own: bool = True  # it may have been the job's own doing; False: its machine was lost


@dataclass(frozen=True)
class TooLong:
    """In place of a job's result: it ran longer than the time limit, and its worker was killed."""

    words: str


def prepare_worker(threads: int) -> None:
    """Threads, and the part of torch that a process's first optimiser would import in the middle of a job."""
    use_threads(threads)
    importlib.import_module("torch._dynamo")
