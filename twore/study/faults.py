"""What can go wrong with a job, in one sentence each, and what follows: the job failed, or the whole run must stop."""

from __future__ import annotations

import errno
import gc
import os
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

import torch

from twore.study.store import Store

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class FolderError(OSError):
    """The run folder can no longer be written: every further job would fail as well."""


@dataclass(frozen=True)
class Failure:
    """Why a job failed; `stop`: the others would fail for the same reason."""

    reason: str
    stop: bool = False


def failed(store: Store, key: str, error: Exception, *, width: str = "") -> Failure:
    """What an error in a job means; recorded in the store unless that is what failed.

    width: of a stack, the flag that sets it: --numerics.stack.
    """
    problem = folder_problem(error, store.root.parent)
    if problem is None:
        reason = _reason(error, width)
        try:
            record_failure(store, key, reason, "".join(traceback.format_exception(error)))
        except OSError as other:
            problem = folder_problem(other, store.root.parent) or str(other)
    return Failure(reason) if problem is None else Failure(problem, stop=True)


def record_failure(store: Store, key: str, reason: str, details: str = "") -> None:
    """Keep what went wrong with a job, until it goes right."""
    before = store.get("failures", key)
    attempts = 1 + (before["attempts"] if before else 0)
    now = {"host": gethostname(), "finished_at": datetime.now(UTC).isoformat(timespec="seconds")}
    store.put("failures", key, {"reason": reason, "attempts": attempts, "details": details, "provenance": now})


def folder_problem(error: Exception, out: Path) -> str | None:
    """One sentence when an error means that nothing more can be written to the run folder, else None."""
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:
        return f"no space is left on the disk of {error.filename or out}: free some, or move the folder"
    inside = error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(out)
    if error.errno in CLOSED and inside:
        return f"{error.filename or out} can no longer be written ({os.strerror(error.errno)}): make it writable again"
    return None


def free_memory() -> None:
    """Give back what a failed job may have left. To be called when its error is no longer held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: Exception, width: str) -> str:
    words = f"{type(error).__name__}: {error}"
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)  # torch has no class for it
    if on_cpu or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        way = f"a smaller {width}, in a new --out, needs less, and so do fewer --workers" if width else ""
        return f"out of memory: {way or 'fewer --workers need less'} ({words})"
    return words
