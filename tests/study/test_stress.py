"""Twenty kills at random moments, of workers and of the driver, and three processes at once: the same tables."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_faults import FaultyTask
from test_kill import alive, children
from test_run import run
from test_shards import SHARDS, start_fixture, tables  # noqa: F401  the fixture `start`

from twore.study import Store, save_study

KILLS = 20
DRIVERS = 4  # of these; a new driver takes seconds to start, a new worker as well, but the others go on meanwhile
PATIENCE = 600.0  # seconds


def workers(pid: int) -> list[int]:
    """The workers of a driver that have begun to work: they hold the pipe, and have more than one thread."""
    found = []
    for child in children(pid):
        place = Path(f"/proc/{child}")
        try:
            if "spawn_main" in (place / "cmdline").read_text() and len(list((place / "task").iterdir())) > 1:
                found.append(child)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def prepared(study, out: Path) -> None:
    out.mkdir()
    save_study(study, out / "study.yaml")


@pytest.mark.slow
def test_twenty_kills(toy_study, tmp_path, start):
    study = replace(toy_study, task=FaultyTask(), finetune_seeds=(0, 1, 2))
    run(study, tmp_path / "serial")
    out, log = tmp_path / "out", tmp_path / "log"
    prepared(study, out)
    dice = random.Random(20)
    victims = ["driver"] * DRIVERS + ["worker"] * (KILLS - DRIVERS)
    dice.shuffle(victims)
    process: subprocess.Popen | None = None
    killed = 0
    until = time.monotonic() + PATIENCE
    while killed < KILLS and time.monotonic() < until:
        if process is None or process.poll() is not None:
            assert process is None or process.returncode in (0, -signal.SIGKILL), process.communicate()[1]
            if process is not None and process.returncode == 0 and not (out / "failures.csv").exists():
                break  # done
            process = start(out, log=log, workers=2, TOY_PAUSE="0.4")
        if not (there := workers(process.pid)):
            time.sleep(0.05)
            continue
        time.sleep(dice.uniform(0.0, 0.8))
        target = process.pid if victims[killed] == "driver" else dice.choice(there)
        if alive(target):
            os.kill(target, signal.SIGKILL)
            killed += 1
    assert process is not None
    process.kill()
    process.communicate()
    assert killed >= KILLS // 2, "the study ended before it could be killed"
    last = start(out, log=log, workers=2)
    _, said = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, said
    assert tables(out) == tables(tmp_path / "serial")
    assert not (out / "failures.csv").exists()
    assert not list((out / "store").rglob("*.tmp"))
    assert not list(Store(out).claims.iterdir())


@pytest.mark.slow
def test_a_shard_is_killed_while_two_others_work_and_comes_back(toy_study, tmp_path, start):
    study = replace(toy_study, task=FaultyTask())
    run(study, tmp_path / "serial")
    out = tmp_path / "out"
    prepared(study, out)

    def begin(shard, pause: str) -> subprocess.Popen:
        return start(out, log=tmp_path / f"log-{shard[0]}", executor="serial", shard=shard, TOY_PAUSE=pause)

    processes = {shard: begin(shard, "0.2") for shard in SHARDS}
    until = time.monotonic() + PATIENCE
    while not Store(out).keys("trajectories") and time.monotonic() < until:
        time.sleep(0.05)
    victim = SHARDS[1]
    processes[victim].kill()
    processes[victim].communicate()
    processes[victim] = begin(victim, "0")
    for process in processes.values():
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
    assert tables(out) == tables(tmp_path / "serial")
    run(study, out)  # clears what the killed process left behind
    assert not list(Store(out).claims.iterdir())
