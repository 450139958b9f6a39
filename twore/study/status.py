"""What is done of a study, what runs, what failed, and how long the rest will take: `twore status DIR`.

Reads the run folder only (study.yaml and the store), never data, and changes nothing in it. Keys are listed, not
records read, so it stays quick for 100,000 cells. `as_json` gives one object:

    {"study": name, "folder": path,
     "state": "finished" | "running" | "stopped" | "not started",
     "trainings":   {"total", "done", "failed", "missing"},   dense runs; total = done + failed + missing
     "cells":       {"total", "done", "failed", "missing"},   failed: not done, and its job or its dense run failed
     "checkpoints": {"total", "done", "failed", "missing"},   measured checkpoints
     "pairs":       {"total", "done", "failed", "missing"},   groups of cells with their pair metrics
     "running": [{"what", "epoch", "epochs", "train_loss", "rate", "host", "seconds_ago"}, ...],
     "failures": [{"job", "key", "reason", "attempts", "host", "finished_at"}, ...],
     "cells_per_hour": number or null,     of late, pauses left out
     "hours_left": number or null,         for what is missing, at the pace of late
     "last_cell_at": ISO 8601 time or null}

The state is "running" while a process renews its claims (twore.study.claims). Jobs report once an epoch, so seconds_ago
may be long for a large model; reports that a killed process left behind are listed for SILENT seconds at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from twore.files import CorruptFileError, read_record
from twore.study.config import load_study
from twore.study.cost import assumed_pace, duration, job_seconds
from twore.study.create import STUDY_FILE
from twore.study.schedule import Job
from twore.study.specs import Study
from twore.study.store import Store

SILENT = 900.0  # seconds after which a report of no living process no longer counts; our choice
CLAIM_SILENT = 120.0  # seconds; claims are renewed every 5, and clocks of machines may differ a little
SAMPLE = 1000  # cells whose times are read; keys are hashes, so the first of them in order are a fair sample
LATE = 100  # of these, the last ones that make the pace
PAUSE = 20.0  # a gap this many times the median (and over a minute) is a pause, not work; our choice
SHOWN = 20  # failures in the text


@dataclass(frozen=True)
class Count:
    """How much of one kind there is; total = done + failed + missing."""

    total: int = 0
    done: int = 0
    failed: int = 0
    missing: int = 0


@dataclass(frozen=True)
class Status:
    """The state of a run folder; fields as the module says."""

    study: str
    folder: str
    state: str
    trainings: Count
    cells: Count
    checkpoints: Count
    pairs: Count
    running: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    cells_per_hour: float | None
    hours_left: float | None
    last_cell_at: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; a number that is not finite is null."""
        return _finite(asdict(self))


def read_status(folder: Path) -> Status:
    """The status of a run folder. ConfigError without a study.yaml, or with one that does not fit."""
    study, store = load_study(folder / STUDY_FILE), Store(folder)
    plan = _Plan(study, store)
    alive = _alive(store)
    running = [job for job in _running(store) if alive or job["seconds_ago"] < SILENT]
    finished = _times(store, plan.cells_done)
    late, seconds = _late(finished)
    rate = hours_left = None
    if seconds > 0:
        scale = len(plan.cells_done) / len(finished)
        rate = 3600 * scale * len(late) / seconds
        hours_left = plan.left / (scale * sum(plan.weights[key] for key in late) / seconds) / 3600
    kinds = (plan.trainings, plan.cells, plan.checkpoints, plan.pairs)
    state = "stopped" if any(kind.done for kind in kinds) or plan.failures else "not started"
    state = "running" if alive or running else state
    state = "finished" if all(kind.done == kind.total for kind in kinds) else state
    return Status(
        study=study.name, folder=str(folder), state=state, trainings=plan.trainings, cells=plan.cells,
        checkpoints=plan.checkpoints, pairs=plan.pairs, running=running, failures=plan.failures,
        cells_per_hour=rate, hours_left=0.0 if state == "finished" else hours_left,
        last_cell_at=finished[-1][0].isoformat() if finished else None,
    )  # fmt: skip


def in_words(status: Status) -> str:
    """The status as a few lines for a terminal."""
    lines = [f"{status.study} in {status.folder}: {status.state}"]
    for name in ("trainings", "cells", "checkpoints", "pairs"):
        count: Count = getattr(status, name)
        if count.total:
            share = f"{100 * count.done / count.total:.0f} %"
            line = f"  {name:<12}{count.done:>8,} of {count.total:>8,}  {share:>5}"
            lines.append(line + (f", {count.failed:,} failed" if count.failed else ""))
    if status.cells_per_hour is not None and status.state != "finished":
        left = "" if status.hours_left is None else f", about {duration(3600 * status.hours_left)} left"
        lines.append(f"  pace        {status.cells_per_hour:>8,.0f} cells an hour{left}")
    if status.last_cell_at and status.state == "stopped":
        lines.append(f"  the last cell was finished at {status.last_cell_at}; the same command goes on from here")
    for job in status.running:
        loss, rate = _number(job["train_loss"], ".3g"), _number(job["rate"], ",.0f")
        where = f"epoch {job['epoch']}/{job['epochs']}, loss {loss}, {rate}/s on {job['host']}"
        lines.append(f"  running: {job['what']}: {where}, {duration(job['seconds_ago'])} ago")
    for failure in status.failures[:SHOWN]:
        reason = str(failure["reason"]).splitlines()[0]
        lines.append(f"  failed: {failure['job']}: {reason} ({failure['attempts']} attempts)")
    if len(status.failures) > SHOWN:
        lines.append(f"  and {len(status.failures) - SHOWN} more failures: --json lists them")
    return "\n".join(lines)


class _Plan:
    """Each job of the study held against the keys in its store."""

    def __init__(self, study: Study, store: Store) -> None:
        have = {kind: store.keys(kind) for kind in ("trajectories", "checkpoints", "cells", "pairs", "failures")}
        counts = {kind: _Counter() for kind in ("trainings", "cells", "checkpoints", "pairs")}
        self.cells_done: list[str] = []
        self.weights: dict[str, float] = {}  # assumed seconds of a cell, to weigh settings against each other
        self.failures: list[dict[str, Any]] = []
        self.left = 0.0  # assumed seconds of what is missing
        said: set[str] = set()  # jobs whose failure is listed; two settings may share one
        for trajectory in study.trajectories:
            training_weight, cell_weight = (s or 1.0 for s in job_seconds(trajectory.study, assumed_pace))
            dense_failed = trajectory.key in have["failures"]
            self._note(store, Job(trajectory), have["failures"], said)
            state = counts["trainings"].add(trajectory.key, have["trajectories"], failed=dense_failed)
            blocked = dense_failed and trajectory.key not in have["trajectories"]  # else only its metrics failed
            self.left += training_weight * (state == "missing")
            for epoch in trajectory.epochs:
                counts["checkpoints"].add(trajectory.checkpoint_key(epoch), have["checkpoints"], failed=dense_failed)
            for group in trajectory.groups():
                failed = blocked or group.pairs_key in have["failures"]
                self._note(store, Job(trajectory, group), have["failures"], said)
                if group.pairs:
                    counts["pairs"].add(group.pairs_key, have["pairs"], failed=failed)
                for key in group.cell_keys.values():
                    state = counts["cells"].add(key, have["cells"], failed=failed)
                    self.left += cell_weight * (state == "missing")
                    if state == "done":
                        self.cells_done.append(key)
                        self.weights[key] = cell_weight
        self.trainings, self.cells = counts["trainings"].count, counts["cells"].count
        self.checkpoints, self.pairs = counts["checkpoints"].count, counts["pairs"].count

    def _note(self, store: Store, job: Job, failed: set[str], said: set[str]) -> None:
        if job.key not in failed or job.key in said:
            return
        said.add(job.key)
        record = _read(store, "failures", job.key)
        if record is not None:
            where = record.get("provenance", {})
            self.failures.append(
                {"job": job.words, "key": job.key, "reason": record.get("reason"), "attempts": record.get("attempts"),
                 "host": where.get("host"), "finished_at": where.get("finished_at")}
            )  # fmt: skip


class _Counter:
    """Counts keys, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._counts = {"done": 0, "failed": 0, "missing": 0}

    def add(self, key: str, have: set[str], *, failed: bool) -> str | None:
        """done, failed or missing; None for a key that was counted before."""
        if key in self._seen:
            return None
        self._seen.add(key)
        state = "done" if key in have else "failed" if failed else "missing"
        self._counts[state] += 1
        return state

    @property
    def count(self) -> Count:
        """The sums."""
        return Count(len(self._seen), **self._counts)


def _times(store: Store, done: Iterable[str]) -> list[tuple[datetime, str]]:
    """When a fair sample of the finished cells was finished, rising, with their keys."""
    found = []
    for key in sorted(done)[:SAMPLE]:
        record = _read(store, "cells", key)
        if record is not None:
            found.append((datetime.fromisoformat(record["provenance"]["finished_at"]), key))
    return sorted(found)


def _late(finished: list[tuple[datetime, str]]) -> tuple[list[str], float]:
    """The cells finished of late, and the seconds they took together; pauses count for neither."""
    last = finished[-LATE:]
    gaps = [((now - before).total_seconds(), key) for (before, _), (now, key) in zip(last, last[1:])]
    if not gaps:
        return [], 0.0
    longest = max(60.0, PAUSE * median(gap for gap, _ in gaps))
    kept = [(gap, key) for gap, key in gaps if gap <= longest]
    return [key for _, key in kept], sum(gap for gap, _ in kept)


def _alive(store: Store) -> bool:
    """Whether some process shows signs of life in the folder."""
    now = time.time()
    for path in store.claims.glob("*/*"):
        with suppress(FileNotFoundError):  # released just now
            if now - path.stat().st_mtime < CLAIM_SILENT:
                return True
    return False


def _running(store: Store) -> list[dict[str, Any]]:
    now = time.time()
    found = (_read(store, "running", key) for key in sorted(store.keys("running")))
    names = ("what", "epoch", "epochs", "train_loss", "rate", "host")
    return [{n: r.get(n) for n in names} | {"seconds_ago": max(0.0, now - r["at"])} for r in found if r and "at" in r]


def _read(store: Store, kind: str, key: str) -> dict[str, Any] | None:
    """A record, or None when it is gone or broken; unlike Store.get it moves nothing."""
    try:
        return read_record(store.path(kind, key))
    except (FileNotFoundError, CorruptFileError):
        return None


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, (int, float)) else "?"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
