"""What is left to do, and what can start now and here.

A group can start as soon as its checkpoint is on disk: with several workers, pruning and fine-tuning of early
checkpoints goes on while the dense run still trains. Every job is claimed first (twore.study.claims), so that several
processes can work on one folder: a job that another process has is looked at again later.

What is done is known by listing the store, not by reading it: 100,000 records are scanned in seconds. A damaged record
is found when the tables are read, and made again in a second pass (twore.study.run).

A shard (i, n) has its own share of the groups, by their keys, and the dense runs that these need; it takes nothing
else, also when it is done early. So shards add up to the study whether they share a disk (then each dense run is
trained once, by whoever comes first) or not (then each shard trains what it needs, and `twore merge` joins the stores).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from twore.study.claims import Claims
from twore.study.specs import Group, Study, Trajectory
from twore.study.stages import group_done
from twore.study.store import Store


@dataclass(frozen=True, eq=False)
class Job:
    """One unit of work for a worker: a dense run with its checkpoint metrics, or a group of cells.

    more: further jobs that run in the same stack: groups (numerics.stack above 1), or dense runs of other seeds
    (numerics.dense_stack). Each keeps its own claim and failures.
    """

    trajectory: Trajectory
    group: Group | None = None
    more: tuple[Job, ...] = ()

    @property
    def parts(self) -> list[Job]:
        """The job itself, or each job of a stack."""
        return [replace(self, more=()), *self.more] if self.more else [self]

    @property
    def key(self) -> str:
        """Identity, for claims, for failures and for a job that two settings share."""
        return self.trajectory.key if self.group is None else self.group.pairs_key

    @property
    def words(self) -> str:
        """The job in words, for one clear line."""
        words = f"{self.trajectory.setting} seed={self.trajectory.seed}"
        words = words if self.group is None else f"{words} epoch={self.group.epoch} ratio={self.group.ratio:g}"
        return f"{words} and {len(self.more)} more" if self.more else words

    @property
    def width(self) -> str:
        """The flag that says how many models are trained at once, where it says more than one; else empty."""
        numerics, name = self.trajectory.study.numerics, "dense_stack" if self.group is None else "stack"
        return f"--numerics.{name}" if getattr(numerics, name) > 1 else ""

    @property
    def cells(self) -> int:
        """Cells that this job finishes."""
        return sum(len(part.group.cell_keys) for part in self.parts if part.group)


class Schedule:
    """The jobs of a study (or of one shard of it) that are not done, in a good order."""

    def __init__(
        self,
        study: Study,
        store: Store,
        claims: Claims,
        *,
        shard: tuple[int, int] | None = None,
        only_failed: bool = False,
    ) -> None:
        self.store, self._claims = store, claims
        self.total = self.done = 0  # cells
        self._again: list[Job] = []  # claimed already
        self._dense: list[Job] = []
        self._ready: list[Job] = []
        self._waiting: list[Job] = []  # for their checkpoint
        self._failures = {key: self._attempts(key) for key in store.keys("failures")}  # of earlier runs: tried again
        have = {kind: store.keys(kind) for kind in ("checkpoints", "probes", "cells", "pairs")}
        seen: set[object] = set()
        for trajectory in study.trajectories:
            groups = [group for group in trajectory.groups() if in_share(group.pairs_key, shard)]
            dense = (trajectory.key, *trajectory.epochs)
            if only_failed and trajectory.key not in self._failures:
                groups = [group for group in groups if group.pairs_key in self._failures]
                seen.add(dense)
            if groups and dense not in seen:
                seen.add(dense)
                if not _measured(store, trajectory, have["checkpoints"]):
                    self._dense.append(Job(trajectory))
            for group in groups:
                job = Job(trajectory, group)
                if job.key in seen:
                    continue
                seen.add(job.key)
                self.total += job.cells
                if _listed(group, have):
                    self.done += job.cells
                    if job.key in self._failures:  # killed after it went right, before it could say so
                        store.drop("failures", job.key)
                else:
                    self._waiting.append(job)

    @property
    def elsewhere(self) -> bool:
        """After `next` found nothing: whether jobs of ours are being done by other processes."""
        return bool(self._dense or self._ready)

    def next(self) -> Job | None:
        """A job that can start now, claimed. Dense runs come first, since the others wait for them."""
        if self._again:
            return self._again.pop()
        job = self._claimed(self._dense) or self._claimed(self._ready)
        job = self._claimed(self._ready) if job is None and self._release() else job
        return job if job is None else self._with_more(job)

    def again(self, job: Job) -> None:
        """A job whose worker died is to start again."""
        self._again.append(job)

    def finish(self, job: Job, *, done: bool) -> None:
        """A job ended, well or not, and what there is to say about it is in the store."""
        self._claims.release(job.key)
        self.done += job.cells if done else 0

    def blocked(self) -> list[Job]:
        """Groups whose checkpoint never came, since their dense run failed."""
        return self._waiting

    def _with_more(self, job: Job) -> Job:
        """The job with ones that can start now and fit its stack, claimed too."""
        numerics, more = job.trajectory.study.numerics, list[Job]()
        jobs, width = (self._dense, numerics.dense_stack) if job.group is None else (self._ready, numerics.stack)
        while 1 + len(more) < width and (other := self._claimed(jobs, like=job)) is not None:
            more.append(other)
        return replace(job, more=tuple(more)) if more else job

    def _claimed(self, jobs: list[Job], like: Job | None = None) -> Job | None:
        for job in list(jobs):
            if like is not None and not stackable(like, job):
                continue
            if not self._claims.take(job.key):
                continue
            jobs.remove(job)
            done = self.is_done(job)
            if not done and self._attempts(job.key) <= self._failures.get(job.key, 0):
                return job
            self.finish(job, done=done)  # another process did it, or failed on it, since we began
        return None

    def is_done(self, job: Job) -> bool:
        """Whether all results of a dense run or of a group (not of a stack) are there."""
        if job.group is not None:
            return group_done(self.store, job.group)
        return _measured(self.store, job.trajectory, self.store.keys("checkpoints"))

    def _attempts(self, key: str) -> int:
        record = self.store.get("failures", key)
        return record["attempts"] if record else 0

    def _release(self) -> bool:
        """Groups whose checkpoint has come become ready; whether there are any."""
        places = {(job.trajectory.key, job.group.epoch) for job in self._waiting if job.group}
        there = {key: self.store.checkpoints(key) for key in {key for key, _ in places}}
        present = {(key, epoch) for key, epoch in places if epoch in there[key]}
        still: list[Job] = []
        for job in self._waiting:
            here = job.group is not None and (job.trajectory.key, job.group.epoch) in present
            (self._ready if here else still).append(job)
        found, self._waiting = len(self._waiting) > len(still), still
        return found


def stackable(one: Job, other: Job) -> bool:
    """Whether two jobs can run in one stack: dense runs, or cells of groups, that are trained alike; cells by the same
    clock, too."""
    a, b = one.trajectory.study, other.trajectory.study
    if one.group is None or other.group is None:
        return one.group is other.group and (a.task, a.dense) == (b.task, b.dense)
    alike = ("task", "finetune", "pruning", "finetune_seeds")
    if any(getattr(a, name) != getattr(b, name) for name in alike):
        return False
    places = [(job.trajectory.key, job.group.epoch) for job in (one, other) if job.group]
    return a.finetune.clock == "restart" or places[0] == places[1]


def in_share(key: str, shard: tuple[int, int] | None) -> bool:
    """Whether a group belongs to shard (i, n), 1 <= i <= n: by its key alone, so it never moves."""
    return shard is None or int(key[:12], 16) % shard[1] == shard[0] - 1


def _listed(group: Group, have: dict[str, set[str]]) -> bool:
    """Whether all results of a group are among the keys of the store: as group_done, without reading them."""
    study = group.trajectory.study
    return (
        (not study.probe_batches or group.probe_key in have["probes"])
        and all(key in have["cells"] for key in group.cell_keys.values())
        and (not group.pairs or group.pairs_key in have["pairs"])
    )


def _measured(store: Store, trajectory: Trajectory, have: set[str]) -> bool:
    """Whether a dense run is done, its checkpoints are there, and all are among the measured ones (`have`)."""
    epochs = trajectory.epochs
    return (
        store.get("trajectories", trajectory.key) is not None
        and store.checkpoints(trajectory.key).issuperset(epochs)
        and all(trajectory.checkpoint_key(epoch) in have for epoch in epochs)
    )
