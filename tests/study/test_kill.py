"""kill -9 at random moments, then the same command: the same tables as an undisturbed serial run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_run import run, table_without_provenance

from twore.study import save_study

KILLS = 3


def children(pid: int) -> list[int]:
    """Process ids of the direct children (Linux)."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def start(out: Path, workers: int) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "twore.cli", "run", str(out / "study.yaml"), "--workers", str(workers)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finished_cells(out: Path) -> int:
    return len(list((out / "store" / "cells").glob("*/*.json")))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_and_resumed_equals_undisturbed(toy_study, tmp_path, victim):
    study = replace(toy_study, task=replace(toy_study.task, pause=0.15))
    run(study, tmp_path / "serial")
    out = tmp_path / "killed"
    out.mkdir()
    save_study(study, out / "study.yaml")
    dice, kills = random.Random(1), 0
    while kills < KILLS:
        process = start(out, workers=2)
        begun = finished_cells(out)
        while process.poll() is None and finished_cells(out) < begun + 1 and not (out / "store" / "running").exists():
            time.sleep(0.05)
        time.sleep(dice.uniform(0.0, 1.0))
        if process.poll() is not None:
            break
        target = process.pid if victim == "driver" else dice.choice(children(process.pid) or [process.pid])
        os.kill(target, signal.SIGKILL)
        kills += 1
        if victim == "worker":
            process.wait(timeout=120)  # the driver replaces its workers and finishes by itself
        process.kill()
        process.communicate()
    assert kills >= 1
    last = start(out, workers=2)
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    for name in ("results.csv", "pairs.csv", "checkpoints.csv", "curves.csv"):
        assert table_without_provenance(out, name) == table_without_provenance(tmp_path / "serial", name)
    litter = [path for path in (out / "store").rglob("*.tmp") if path.is_file()]
    assert not [path for path in litter if not path.name.startswith(".")]


@pytest.mark.slow
def test_workers_end_with_their_driver(toy_study, tmp_path):
    study = replace(toy_study, task=replace(toy_study.task, pause=0.5))
    save_study(study, tmp_path / "study.yaml")
    process = start(tmp_path, workers=2)
    workers: list[int] = []
    while process.poll() is None and not (workers and (tmp_path / "store" / "trajectories").exists()):
        workers = children(process.pid)
        time.sleep(0.05)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while (left := [pid for pid in workers if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers
    assert not left


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
