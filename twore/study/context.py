"""Where a stage works: the run folder, the data (read once a process), the device, and where results came from."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from twore.files import CorruptFileError, read_record
from twore.study.specs import Study
from twore.study.store import Store
from twore.tasks.base import TaskData
from twore.training import Epoch
from twore.training.tracking import tensorboard


@dataclass(frozen=True)
class Context:
    """Where a stage works."""

    out: Path  # the run folder
    data: Path | None  # the user's data folder
    device: str  # "cpu", "cuda:0", ...
    commit: str  # of the code, for provenance
    tensorboard: bool = False  # whether to write curves of every training

    def curves(self, key: str) -> AbstractContextManager[Callable[[Epoch, dict[str, Any]], object]]:
        """Where a training's epochs go for people to watch."""
        return tensorboard(self.out / "tensorboard" / key) if self.tensorboard else nullcontext(lambda *_: None)


def data_of(context: Context, study: Study) -> TaskData:
    """The study's data on the context's device. ValueError when other data are found than the study has."""
    task: Any = study.task  # hashable: a frozen value
    data: TaskData = _loaded(task, context.data, context.device)
    if study.data_fingerprint not in ("auto", data.fingerprint):
        raise ValueError(
            f"the data found are not the study's ({data.fingerprint}, the study has {study.data_fingerprint}): "
            "point --data at the study's data, or start a new study with another --out"
        )
    return data


def check_data(store: Store, trajectory: str, data: TaskData) -> None:
    """ValueError when the data are not those that the dense run saw, whatever its fingerprint of the corpus says.

    A subsample or a vocabulary is made by libraries, whose next release may make another: checkpoints do not fit it.
    """
    try:
        before = read_record(store.data_record(trajectory))
    except (FileNotFoundError, CorruptFileError):
        return  # nothing to compare with
    now = data.describe()
    changed = [name for name in before.keys() & now.keys() - {"source", "samples"} if before[name] != now[name]]
    if changed:
        raise ValueError(
            f"the data are no longer those of the dense run (they differ in {', '.join(sorted(changed))}): use the "
            "libraries that made it, or start a new study with another --out"
        )


@lru_cache(maxsize=2)
def _loaded(task: Any, folder: Path | None, device: str) -> TaskData:
    return task.load(folder, torch.device(device))  # read once a process; two, since settings may alternate


def provenance(context: Context, started: float) -> dict[str, Any]:
    """Where and when a result was made. started: of time.monotonic()."""
    return {
        "host": socket.gethostname(),
        "seconds": round(time.monotonic() - started, 3),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": context.commit,
    }
