"""Running a study: start what can start, keep going past failures, leave tables that are always true.

The same call resumes: what is in the store is not computed again. Killing it at any moment loses at most the cells in
flight. Several processes may run the same study in one folder at the same time, on one machine or on many that share a
file system (twore.study.claims says what that must provide): they share the jobs, and the last to end writes complete
tables.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twore.data import data_folder
from twore.provenance import code_version
from twore.study.claims import Claims
from twore.study.create import check_writable, open_study
from twore.study.dense import dense_run
from twore.study.executors import Executor, check_options, make_executor
from twore.study.faults import Failure, FolderError, failed, folder_problem, free_memory, record_failure
from twore.study.outcomes import Died, TooLong
from twore.study.progress import Bar
from twore.study.schedule import Job, Schedule
from twore.study.signals import Stop, stop_signals
from twore.study.specs import Study, Trajectory
from twore.study.stacked import fine_tuned_stack
from twore.study.stacked_dense import dense_stack
from twore.study.stages import Context, checkpoint_metrics, fine_tuned_group
from twore.study.store import Store
from twore.study.tables import Results, read_results

POLL = 1.0  # seconds between looks at running jobs, here and in other processes
MAX_ATTEMPTS = 3  # of a job whose worker process dies
MAX_LOSSES = 10  # of a job whose machine is lost; our choice: borrowed machines are taken away, jobs seldom kill one


def run_study(
    study: Study,
    out: Path | str,
    *,
    workers: int | None = 1,
    executor: str = "process",
    slots: int | None = None,
    ray_address: str | None = None,
    data: Path | str | None = None,
    quiet: bool = False,
    shard: tuple[int, int] | None = None,
    time_limit: float | None = None,
    only_failed: bool = False,
    tensorboard: bool = False,
) -> Results:
    """Compute what is missing of the study in folder `out`, write its tables, and return them.

    executor: "process" (`workers` processes on this machine), "serial" (in this process) or "ray" (`workers` processes
    on a Ray cluster, None for as many as it has room for). slots: how many workers may share one GPU (one with Ray,
    any number otherwise). ray_address: of a running cluster; default RAY_ADDRESS, else one is started for this run.
    data: a folder with the data set's files directly in it or in a sub-folder of its name; default the environment
    variable TWORE_DATA.
    shard: (i, n) with 1 <= i <= n, this process does the i-th of n shares and nothing else; without it, it takes
    whatever no other living process has, and waits for the rest. time_limit: seconds a job may take, a dense run, the
    cells of one group, or a whole stack of either; one that takes longer is ended and fails (its training goes on from
    there next time).
    only_failed: try again what failed, and what could not start for it, and nothing else.
    tensorboard: write curves of every training to `tensorboard/` in the folder (extra `track`).
    Failed jobs are listed in Results.failures, one line each on stderr; the others go on. Raises ConfigError for a
    folder that holds another study, DataError for missing or broken data, FolderError (an OSError) when the folder can
    no longer be written, ConnectionError (one as well) for a Ray cluster that cannot be used, ModuleNotFoundError
    without Ray, StoppedError (a KeyboardInterrupt) after Ctrl-C or SIGTERM.
    """
    folder, out = data_folder(str(data) if data else None), Path(out).resolve()
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard is (i, n) with 1 <= i <= n: got {shard}")
    check_options(executor, workers, time_limit, slots)
    check_writable(out)
    store = Store(out)
    try:
        with stop_signals() as stop, Claims(store.claims) as claims:
            with claims.hold("study"):  # `auto` is settled once, by whoever comes first
                study = open_study(study, out, folder)
                if claims.clear():
                    store.sweep()
                claims.announce()
            stop.at_once = executor == "serial"
            context = Context(out, folder and folder.resolve(), study.numerics.device, code_version(), tensorboard)
            while True:
                pool = make_executor(
                    executor, out, study.numerics,
                    workers=workers, slots=slots, ray_address=ray_address, time_limit=time_limit,
                )  # fmt: skip
                schedule = Schedule(study, store, claims, shard=shard, only_failed=only_failed)
                bar = Bar(schedule.total, schedule.done, store, quiet=quiet)
                try:
                    _drive(schedule, pool, context, bar, stop)
                except BaseException:
                    pool.stop(now=True)
                    bar.close()
                    if not stop.twice:
                        with suppress(OSError):  # a full disk has no room for tables either: that is being said already
                            _write_tables(study, store, claims)
                    raise
                pool.stop(now=False)
                bar.close()
                damaged = store.damaged
                results = _write_tables(study, store, claims)
                if store.damaged == damaged:
                    return results
                say("damaged results were found and set aside: they are computed again")
    except OSError as error:
        problem = folder_problem(error, out)
        if problem is None:
            raise
        raise FolderError(problem) from error


def work(context: Context, job: Job) -> dict[str, Failure]:
    """Do one job in a worker. Returns what failed of it, by key, recorded in the store too; empty if all went well."""
    store = Store(context.out)
    parts = job.parts
    errors: dict[str, Exception] = {}
    try:
        if job.group is None and job.trajectory.study.numerics.dense_stack > 1:
            errors = dense_stack(context, [part.trajectory for part in parts])
            errors |= _measured(context, [part.trajectory for part in parts if part.key not in errors])
        elif job.group is None:
            dense_run(context, job.trajectory)
            _measure(context, job.trajectory)
        elif job.group.trajectory.study.numerics.stack > 1:
            errors = fine_tuned_stack(context, [part.group for part in parts if part.group])
        else:
            fine_tuned_group(context, job.group)
    except Exception as error:  # noqa: BLE001  the border of a job: whatever went wrong is recorded, the others go on
        errors = dict.fromkeys((part.key for part in parts), error)
    failures = {key: failed(store, key, error, width=job.width) for key, error in errors.items()}
    for part in parts:
        if part.key not in failures:
            store.drop("failures", part.key)
    if errors:
        errors.clear()
        free_memory()
    return failures


def _measure(context: Context, trajectory: Trajectory) -> None:
    for epoch in trajectory.epochs:
        checkpoint_metrics(context, trajectory, epoch)


def _measured(context: Context, trajectories: Sequence[Trajectory]) -> dict[str, Exception]:
    """Measure the checkpoints of several dense runs; returns what failed."""
    errors: dict[str, Exception] = {}
    for trajectory in trajectories:
        try:
            _measure(context, trajectory)
        except Exception as error:  # noqa: BLE001  the border of a dense run: the others in its stack go on
            errors[trajectory.key] = error
    return errors


def _drive(schedule: Schedule, pool: Executor, context: Context, bar: Bar, stop: Stop) -> None:
    crashes: Counter[tuple[str, bool]] = Counter()
    waited, said = False, ""
    while not stop.overdue:
        while pool.free and not stop.asked and (job := schedule.next()) is not None:
            pool.submit(job, work, context, job)
        if pool.busy:
            for job, outcome in pool.wait(POLL):
                _settle(job, outcome, schedule, crashes, bar)
        elif stop.asked or not schedule.elsewhere:
            break
        else:
            if not waited:
                bar.say("waiting for jobs that other processes are doing")
                waited = True
            time.sleep(POLL)
        if pool.problem and pool.problem != said:
            said = pool.problem
            bar.say(said)
        bar.reach(schedule.done)
        bar.look(pool.words)
    stop.check()
    blocked = sum(job.cells for job in schedule.blocked())
    if blocked:
        bar.say(f"not started: {blocked} cells whose dense run failed")


def _settle(job: Job, outcome: Any, schedule: Schedule, crashes: Counter[tuple[str, bool]], bar: Bar) -> None:
    """A job ended: it is done, it failed, or it is tried again."""
    if isinstance(outcome, Died):
        crashes[job.key, outcome.own] += 1
        if crashes[job.key, outcome.own] < (MAX_ATTEMPTS if outcome.own else MAX_LOSSES):
            bar.say(f"a worker process {outcome.words}; it starts again with {job.words}")
            schedule.again(job)
            return
    failures: dict[str, Failure] = {}
    if isinstance(outcome, (Died, TooLong)):
        reason = f"exceeded {outcome.words}"
        if isinstance(outcome, Died):
            reason = f"its worker process {outcome.words}, {crashes[job.key, outcome.own]} times"
            if job.width and outcome.own:
                reason += f" (a smaller {job.width}, in a new --out, needs less memory)"
        for part in job.parts:
            if schedule.is_done(part):  # before its worker ended, as some groups of a stack are
                schedule.store.drop("failures", part.key)
            else:
                failures[part.key] = Failure(reason)
                record_failure(schedule.store, part.key, reason)
    else:
        failures = outcome
    for part in job.parts:
        schedule.finish(part, done=part.key not in failures)
    for part in job.parts:
        failure = failures.get(part.key)
        if failure is not None and failure.stop:
            raise FolderError(failure.reason)
        if failure is not None:
            bar.say(f"failed: {part.words}: {failure.reason.splitlines()[0]}")


def _write_tables(study: Study, store: Store, claims: Claims) -> Results:
    with claims.hold("tables"):  # read and written in one go: who comes last has seen what all others did
        results = read_results(study, store)
        results.write(store.root.parent)
    return results


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)
