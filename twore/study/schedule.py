"""What is left to do, and what can start now.

A group can start as soon as its checkpoint is on disk: with several workers, pruning and fine-tuning of early
checkpoints goes on while the dense run still trains.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from twore.study.specs import Group, Study, Trajectory
from twore.study.stages import dense_run_done, group_done
from twore.study.store import Store


@dataclass(frozen=True, eq=False)
class Job:
    """One unit of work for a worker: a dense run with its checkpoint metrics, or a group of cells."""

    trajectory: Trajectory
    group: Group | None = None

    @property
    def key(self) -> str:
        """Identity, for failures and for a job that two settings share."""
        return self.trajectory.key if self.group is None else self.group.pairs_key

    @property
    def words(self) -> str:
        """The job in words, for one clear line."""
        words = f"{self.trajectory.setting} seed={self.trajectory.seed}"
        return words if self.group is None else f"{words} epoch={self.group.epoch} ratio={self.group.ratio:g}"

    @property
    def cells(self) -> int:
        """Cells that this job finishes."""
        return 0 if self.group is None else len(self.group.cell_keys)


class Schedule:
    """The jobs of a study that are not done, in a good order."""

    def __init__(self, study: Study, store: Store) -> None:
        self.store = store
        self.total = self.done = 0  # cells
        self._dense: deque[Job] = deque()
        self._waiting: list[Job] = []
        self._ready: deque[Job] = deque()
        seen: set[str] = set()
        for trajectory in study.trajectories:
            if trajectory.key not in seen and not _measured(store, trajectory):
                self._dense.append(Job(trajectory))
            seen.add(trajectory.key)
            for group in trajectory.groups():
                job = Job(trajectory, group)
                if job.key in seen:
                    continue
                seen.add(job.key)
                self.total += job.cells
                if group_done(store, group):
                    self.done += job.cells
                else:
                    self._waiting.append(job)

    def next(self) -> Job | None:
        """A job that can start now: dense runs first, since the others wait for them."""
        if self._dense:
            return self._dense.popleft()
        if not self._ready:
            self._release()
        return self._ready.popleft() if self._ready else None

    def blocked(self) -> list[Job]:
        """Groups whose checkpoint never came, since their dense run failed."""
        return self._waiting

    def _release(self) -> None:
        places = {(job.trajectory.key, job.group.epoch) for job in self._waiting if job.group}
        present = {place for place in places if self.store.checkpoint(*place).exists()}
        still: list[Job] = []
        for job in self._waiting:
            here = job.group is not None and (job.trajectory.key, job.group.epoch) in present
            (self._ready if here else still).append(job)
        self._waiting = still


def _measured(store: Store, trajectory: Trajectory) -> bool:
    return dense_run_done(store, trajectory) and all(
        store.path("checkpoints", trajectory.checkpoint_key(epoch)).exists() for epoch in trajectory.epochs
    )
