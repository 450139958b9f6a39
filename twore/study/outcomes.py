"""What executors share: how a job may end other than by its result, and the environment of a worker."""

from __future__ import annotations

from dataclasses import dataclass

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
