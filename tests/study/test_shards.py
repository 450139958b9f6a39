"""Several processes on one study: each cell once, the same tables, with a shared disk and without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_run import run, table_without_provenance

from twore.study import Store, load_study, save_study
from twore.study.claims import Claims
from twore.study.faults import record_failure
from twore.study.run import work
from twore.study.schedule import Schedule, in_share
from twore.study.stages import Context

SHARDS = [(1, 3), (2, 3), (3, 3)]


PROGRAM = """
import sys
from pathlib import Path
from twore.study import load_study, run_study, store

out, log, executor, workers, *shard = sys.argv[1:]
put = store.Store.put

def logged(self, kind, key, record):
    put(self, kind, key, record)
    with open(log, "a") as stream:
        stream.write(f"{kind} {key}\\n")

store.Store.put = logged
try:
    run_study(load_study(Path(out) / "study.yaml"), out, workers=int(workers), executor=executor, quiet=True,
              shard=tuple(map(int, shard)) or None)
except KeyboardInterrupt as stop:
    sys.exit(stop.status)
"""


@pytest.fixture(name="start")
def start_fixture():
    """The function _start; what it started does not outlive the test."""
    started: list[subprocess.Popen] = []

    def starting(*args, **options) -> subprocess.Popen:
        started.append(_start(*args, **options))
        return started[-1]

    yield starting
    for process in started:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()  # it may be closed already, where the test has read it


def _start(out: Path, *, log: Path, executor: str = "process", workers: int = 2, shard=(), **environment: str):
    """A process of its own that runs the study in `out`; it logs what it writes itself, not what its workers write."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", PROGRAM, str(out), str(log), executor, str(workers), *map(str, shard)]
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def tables(out: Path) -> dict[str, str]:
    names = ("results.csv", "pairs.csv", "checkpoints.csv", "curves.csv")
    return {name: table_without_provenance(out, name) for name in names}


def test_shares_are_disjoint_and_complete(toy_study):
    keys = [group.pairs_key for trajectory in toy_study.trajectories for group in trajectory.groups()]
    for key in keys:
        assert sum(in_share(key, shard) for shard in SHARDS) == 1
        assert in_share(key, None)
        assert in_share(key, (1, 1))


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0)])
def test_a_shard_that_does_not_exist_is_refused(toy_study, tmp_path, shard):
    with pytest.raises(ValueError, match="1 <= i <= n"):
        run(toy_study, tmp_path / "out", shard=shard)
    assert not (tmp_path / "out").exists()


def test_shards_one_after_the_other_in_one_folder(toy_study, tmp_path):
    run(toy_study, tmp_path / "serial")
    cells = [len(run(toy_study, tmp_path / "shards", shard=shard).cells) for shard in SHARDS]
    assert cells == sorted(cells)
    assert cells[0] < cells[-1] == 16
    assert tables(tmp_path / "shards") == tables(tmp_path / "serial")


def test_shards_in_folders_of_their_own_add_up(toy_study, tmp_path):
    """Without a shared disk: each its own share, and the dense runs that it needs."""
    whole = run(toy_study, tmp_path / "serial")
    parts = [run(toy_study, tmp_path / f"shard-{i}", shard=(i, n)) for i, n in SHARDS]
    keys = [key for part in parts for key in part.cells["key"]]
    assert sorted(keys) == sorted(whole.cells["key"])
    for part in parts:
        assert set(part.cells["dense_seed"]) == set(part.checkpoints["dense_seed"])
        merged = part.cells.merge(whole.cells, on="key", suffixes=("", "_whole"))
        assert (merged["score"] == merged["score_whole"]).all()


@pytest.fixture
def opened(toy_study, tmp_path):
    """(study, store, context) of a folder in which nothing is done."""
    context = Context(tmp_path, None, "cpu", "test")
    return replace(toy_study, data_fingerprint="toy-48"), Store(tmp_path), context


def test_a_job_of_another_process_is_left_to_it(opened):
    study, store, context = opened
    with Claims(store.claims) as claims, Claims(store.claims) as other:
        schedule = Schedule(study, store, claims)
        first, second = study.trajectories
        assert other.take(first.key)
        job = schedule.next()
        assert job is not None
        assert job.key == second.key
        assert schedule.next() is None
        assert schedule.elsewhere
        work(context, job)
        schedule.finish(job, done=True)
        groups = [schedule.next() for _ in range(4)]  # of the second dense run: the first has no checkpoint yet
        assert {group.trajectory.key for group in groups if group} == {second.key}
        assert schedule.next() is None
        other.release(first.key)
        again = schedule.next()
        assert again is not None
        assert again.key == first.key


def test_what_another_process_did_or_failed_on_is_not_done_again(opened):
    study, store, context = opened
    with Claims(store.claims) as claims:
        schedule, other = Schedule(study, store, claims), Schedule(study, store, Claims(store.claims))
        jobs = [other.next(), other.next()]
        work(context, jobs[0])
        other.finish(jobs[0], done=True)
        record_failure(store, jobs[1].key, "it failed there")
        other.finish(jobs[1], done=False)
        found = []
        while (job := schedule.next()) is not None:
            found.append(job)
        assert {job.trajectory.key for job in found} == {jobs[0].trajectory.key}
        assert all(job.group for job in found)
        assert len(found) == len(schedule.blocked()) == 4
        assert Schedule(study, store, claims).next().key == jobs[1].key  # a later run tries it again


def test_at_the_end_a_process_waits_for_the_others(toy_study, tmp_path, capsys):
    """A group that somebody has: all else is done first; when it is given back undone, it is done here."""
    run(toy_study, tmp_path / "serial")
    out, study = tmp_path / "out", replace(toy_study, data_fingerprint="toy-48")
    group = list(study.trajectories[0].groups())[1]
    store, seen = Store(out), []
    other = Claims(store.claims)
    assert other.take(group.pairs_key)

    def give_back() -> None:
        deadline = time.monotonic() + 60
        while len(store.keys("cells")) < 14 and time.monotonic() < deadline:
            time.sleep(0.05)
        seen.extend(store.keys("cells"))
        time.sleep(1.5)
        other.release(group.pairs_key)

    thread = threading.Thread(target=give_back)
    thread.start()
    run(study, out)
    thread.join()
    assert len(seen) == 14
    assert not set(seen) & set(group.cell_keys.values())
    assert "other processes" in capsys.readouterr().err
    assert tables(out) == tables(tmp_path / "serial")


@pytest.mark.slow
@pytest.mark.parametrize("shards", [SHARDS, [(), (), ()]], ids=["shards", "plain runs"])
def test_processes_at_the_same_time_do_each_cell_once(toy_study, tmp_path, start, shards):
    run(toy_study, tmp_path / "serial")
    out, logs = tmp_path / "out", []
    out.mkdir()
    study = replace(toy_study, data_fingerprint="auto", numerics=replace(toy_study.numerics, device="auto"))
    save_study(study, out / "study.yaml")
    processes = []
    for number, shard in enumerate(shards):
        logs.append(tmp_path / f"log-{number}")
        processes.append(start(out, log=logs[-1], executor="serial", shard=shard))
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert tables(out) == tables(tmp_path / "serial")
    assert pd.read_csv(out / "results.csv")["key"].is_unique
    assert load_study(out / "study.yaml").data_fingerprint == "toy-48"
    texts = [log.read_text() for log in logs if log.exists()]  # none where the others were faster
    written = Counter(line for text in texts for line in text.splitlines() if not line.startswith("running"))
    assert set(written.values()) == {1}
    assert sum(line.startswith("cells") for line in written) == 16
    assert not list(Store(out).claims.iterdir())
