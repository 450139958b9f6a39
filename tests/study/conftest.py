"""Shared by the tests of several processes: starting one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def start():
    """The function _start; what it started does not outlive the test."""
    started: list[subprocess.Popen] = []

    def starting(*args, **options) -> subprocess.Popen:
        started.append(_start(*args, **options))
        return started[-1]

    yield starting
    for process in started:
        process.kill()
        process.communicate()


def _start(out: Path, *, log: Path, executor: str = "process", workers: int = 2, shard=(), **environment: str):
    """A process of its own that runs the study in `out`; it logs what it writes itself, not what its workers write."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", PROGRAM, str(out), str(log), executor, str(workers), *map(str, shard)]
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
