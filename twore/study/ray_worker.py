"""What runs in a worker process of a Ray cluster. The driver makes it an actor (twore.study.ray_pool)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import twore
from twore.study.create import STUDY_FILE
from twore.study.identity import FORMAT
from twore.study.outcomes import prepare_worker


@dataclass(frozen=True)
class Place:
    """Where a worker runs."""

    host: str
    node: str  # Ray's name of the machine
    problem: str | None = None  # why it cannot work there, in one sentence


class RayWorker:
    """One job at a time, with the study's thread count; Ray shows it no GPU but its own."""

    def __init__(self, threads: int) -> None:
        prepare_worker(threads)

    def begin(self, folder: str, software: str) -> Place:
        """Look around: a worker that works in another folder, or with other numbers, would spoil the study."""
        import ray

        host, node = socket.gethostname(), ray.get_runtime_context().get_node_id()
        return Place(host, node, find_problem(host, Path(folder), software))

    def do(self, work: Callable[..., Any], args: tuple) -> Any:
        """A job."""
        return work(*args)


def software() -> str:
    """What numbers depend on, in words."""
    return f"twore {twore.__version__} (format {FORMAT}), torch {torch.__version__}"


def find_problem(host: str, folder: Path, wanted: str) -> str | None:
    """Why a worker on `host` cannot work in the run folder with the driver's `software`; None when it can."""
    if not (folder / STUDY_FILE).exists():
        return (
            f"the machine {host} does not see the run folder {folder}: with Ray, --out lies on a file system that all "
            "machines share, under the same name"
        )
    if software() != wanted:
        return f"the machine {host} has {software()}, the driver {wanted}: install the same on all machines"
    return None
