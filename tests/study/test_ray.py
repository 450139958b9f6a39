"""A real Ray: on this machine, and a cluster of three nodes that loses one, and then its driver: tables as serial.

Ray's test cluster runs all nodes on this machine; that is not part of its stable interface.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import run
from test_shards import tables
from toy import CPU, ToyData, ToyTask

from twore.study import Store, Study, save_study
from twore.study.claims import Claims
from twore.training import Training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'twore[ray]'"
    ),
]
PATIENCE = float(os.environ.get("TWORE_TEST_PATIENCE", "300"))  # seconds
MARK = "TWORE_TEST_MARK"  # inherited by all that Ray starts, so that strays can be found
HEALTH = {
    f"health_check_{name}": value
    for name, value in {
        "initial_delay_ms": 1000,
        "period_ms": 1000,
        "timeout_ms": 20000,
        "failure_threshold": 3,
    }.items()
}  # fmt: skip  a dead node is noticed after seconds, and one on a busy machine is not dead


@dataclass(frozen=True)
class LoudTask(ToyTask):
    """The toy task, printing at every epoch, and held up there until the file TWORE_TEST_GATE exists."""

    def load(self, folder: Path | None, device: torch.device) -> LoudData:
        return LoudData(self, device)


class LoudData(ToyData):
    def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
        print("LOUD", flush=True)
        print("LOUD", file=sys.stderr, flush=True)
        gate = os.environ.get("TWORE_TEST_GATE")
        if gate:
            Path(f"{gate}-{os.getpid()}").touch()
        while gate and not Path(gate).exists():
            time.sleep(0.05)
        yield from super().epoch(batch_size, seed)


@pytest.fixture(scope="module")
def study() -> Study:
    """2 dense runs, and 4 groups of 2 cells: each node gets a dense run, and a driver can die among the cells."""
    short = Training(epochs=2, batch_size=16, lr=0.05, drops=())
    return Study(
        task=LoudTask(pause=0.3), name="toy", dense=short, finetune=replace(short, epochs=1), numerics=CPU,
        checkpoints=(2,), ratios=(0.3, 0.8), dense_seeds=(0, 1), finetune_seeds=(0, 1), permutations=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def serial(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tables that every way of running it must give."""
    folder = tmp_path_factory.mktemp("serial")
    run(study, folder)
    return tables(folder)


@pytest.fixture
def mark(monkeypatch):
    """Marks all processes started from here on; none may be left in the end."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield value
    until = time.monotonic() + PATIENCE
    while (left := marked(value)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left


def marked(value: str) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={value}".encode() in (place / "environ").read_bytes() and int(place.name) != os.getpid():
                found.append(int(place.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def start(out: Path, log: Path, *options: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]),
    }
    command = [sys.executable, "-m", "twore.cli", "run", str(out / "study.yaml"), "--executor", "ray", *options]
    with log.open("a") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)


def wait_for(what: Any, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def records(out: Path) -> dict[Path, int]:
    kinds = ("trajectories", "checkpoints", "probes", "cells", "pairs")
    return {path: path.stat().st_mtime_ns for kind in kinds for path in (out / "store" / kind).rglob("*.json")}


def prepared(study, out: Path) -> None:
    out.mkdir()
    save_study(study, out / "study.yaml")


def test_ray_on_this_machine(study, serial, tmp_path, mark):
    out, log = tmp_path / "out", tmp_path / "log"
    prepared(study, out)
    process = start(out, log, "--workers", "1")
    assert process.wait(timeout=PATIENCE) == 0, log.read_text()
    assert tables(out) == serial
    said = log.read_text()
    assert "LOUD" not in said
    assert "ray" not in said.lower().replace(str(out), "")  # nor does Ray say anything


def test_a_node_and_then_the_driver_are_killed(study, serial, tmp_path, mark, monkeypatch):
    from ray.cluster_utils import Cluster

    out, log, gate = tmp_path / "out", tmp_path / "log", tmp_path / "gate"
    monkeypatch.setenv("TWORE_TEST_GATE", str(gate))
    prepared(study, out)
    dense = {trajectory.key for trajectory in replace(study, data_fingerprint="toy-48").trajectories}
    small = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
        process = start(out, log, "--ray-address", cluster.address)
        wait_for(lambda: len(list(tmp_path.glob("gate-*"))) == 2, process, log)  # each node trains one
        assert dense <= Claims(Store(out).claims).holders().keys()
        cluster.remove_node(nodes[0], allow_graceful=False)
        lost = r"was lost(: its machine does not answer| with its machine); it starts again with"
        wait_for(lambda: re.search(lost, log.read_text()), process, log)
        gate.touch()
        wait_for(lambda: Store(out).keys("cells"), process, log)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = records(out)
        process = start(out, log, "--ray-address", cluster.address)
        assert process.wait(timeout=PATIENCE) == 0, log.read_text()
    finally:
        cluster.shutdown()
    assert tables(out) == serial
    assert not (out / "failures.csv").exists()
    assert {path: at for path, at in records(out).items() if path in done} == done  # nothing was done twice
    assert 0 < len([path for path in done if "cells" in path.parts]) < 8
    assert not list(Store(out).claims.iterdir())
    assert "LOUD" not in log.read_text()


def test_a_cluster_that_is_not_there(study, tmp_path, mark):
    prepared(study, tmp_path / "out")
    process = start(tmp_path / "out", tmp_path / "log", "--ray-address", "127.0.0.1:1")
    assert process.wait(timeout=PATIENCE) == 2
    said = (tmp_path / "log").read_text()
    assert "no Ray cluster at 127.0.0.1:1" in said
    assert "Traceback" not in said
