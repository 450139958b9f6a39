"""Running a study: start what can start, keep going past failures, leave tables that are always true.

The same call resumes: what is in the store is not computed again. Killing it at any moment loses at most the cells in
flight.
"""

from __future__ import annotations

import sys
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from twore.data import data_folder
from twore.provenance import code_version
from twore.study.create import open_study
from twore.study.executors import MAX_ATTEMPTS, Executor, make_executor
from twore.study.progress import Bar
from twore.study.schedule import Job, Schedule
from twore.study.specs import Study
from twore.study.stages import Context, checkpoint_metrics, dense_run, fine_tuned_group
from twore.study.store import Store
from twore.study.tables import Results, read_results

POLL = 1.0  # seconds between looks at running jobs


def run_study(
    study: Study,
    out: Path | str,
    *,
    workers: int = 1,
    executor: str = "process",
    data: Path | str | None = None,
    quiet: bool = False,
) -> Results:
    """Compute what is missing of the study in folder `out`, write its tables, and return them.

    workers: processes on this machine; executor: "process" or "serial" (in this process). data: a folder with the data
    set's files directly in it or in a sub-folder of its name; default the environment variable TWORE_DATA.
    Failed jobs are listed in Results.failures, one line each on stderr; the others go on. Raises ConfigError for a
    folder that holds another study, DataError for missing or broken data.
    """
    folder, out = data_folder(str(data) if data else None), Path(out)
    study = open_study(study, out, folder)
    store = Store(out)
    schedule = Schedule(study, store)
    context = Context(out.resolve(), folder and folder.resolve(), study.numerics.device, code_version())
    pool = make_executor(executor, workers, study.numerics.threads)
    bar = Bar(schedule.total, schedule.done, store, quiet=quiet)
    finished = False
    try:
        _drive(schedule, pool, context, bar)
        finished = True
    finally:
        pool.stop(now=not finished)
        bar.close()
        results = read_results(study, store)
        results.write(out)
    return results


def work(context: Context, job: Job) -> str | None:
    """Do one job in a worker. Returns None, or the reason of a failure (also recorded in the store)."""
    store = Store(context.out)
    try:
        if job.group is None:
            dense_run(context, job.trajectory)
            for epoch in job.trajectory.epochs:
                checkpoint_metrics(context, job.trajectory, epoch)
        else:
            fine_tuned_group(context, job.group)
    except Exception as error:  # noqa: BLE001  the border of a job: whatever went wrong is recorded, the others go on
        reason = f"{type(error).__name__}: {error}"
        record_failure(store, job.key, reason, traceback.format_exc())
        return reason
    store.drop("failures", job.key)
    return None


def record_failure(store: Store, key: str, reason: str, details: str = "") -> None:
    """Keep what went wrong with a job, until it goes right."""
    before = store.get("failures", key)
    attempts = 1 + (before["attempts"] if before else 0)
    now = {"host": gethostname(), "finished_at": datetime.now(UTC).isoformat(timespec="seconds")}
    store.put("failures", key, {"reason": reason, "attempts": attempts, "details": details, "provenance": now})


def _drive(schedule: Schedule, pool: Executor, context: Context, bar: Bar) -> None:
    running: dict[Future, Job] = {}
    crashes: dict[str, int] = {}
    retry: list[Job] = []
    while True:
        while len(running) < pool.slots:
            job = retry.pop() if retry else schedule.next()
            if job is None:
                break
            running[pool.submit(work, context, job)] = job
        if not running:
            break
        finished, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
        bar.look()
        broken = False
        for future in finished:
            job = running.pop(future)
            try:
                _report(job, future.result(), bar)
            except BrokenProcessPool:
                broken = True
                _crashed(job, crashes, retry, schedule.store, bar)
        if broken:  # one worker's death ends the pool: all jobs in flight start again
            for job in running.values():
                _crashed(job, crashes, retry, schedule.store, bar)
            running.clear()
            pool.restart()
    blocked = sum(job.cells for job in schedule.blocked())
    if blocked:
        bar.say(f"not started: {blocked} cells whose dense run failed")


def _report(job: Job, reason: str | None, bar: Bar) -> None:
    if reason is None:
        bar.advance(job.cells)
    else:
        bar.say(f"failed: {job.words}: {reason.splitlines()[0]}")


def _crashed(job: Job, crashes: dict[str, int], retry: list[Job], store: Store, bar: Bar) -> None:
    crashes[job.key] = crashes.get(job.key, 0) + 1
    if crashes[job.key] < MAX_ATTEMPTS:
        retry.append(job)
        return
    reason = f"its worker process died {MAX_ATTEMPTS} times (out of memory?)"
    record_failure(store, job.key, reason)
    _report(job, reason, bar)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)
