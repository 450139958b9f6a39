"""The CIFAR task itself, on digits: the table does not depend on the executor, the workers, or a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from twore.recipes.cifar_scaling import RECIPE
from twore.recipes.command import main
from twore.study.tables import PROVENANCE

SMALL = [
    "--dense.epochs=4", "--dense.drops=[2]", "--checkpoints=[2,4]", "--ratios=[0.5,0.95]", "--dense_seeds=[0]",
    "--finetune.epochs=2", "--finetune.drops=[1]", "--permutations=2",
]  # fmt: skip
FASTER = ["--task.width=8", "--task.data_percent=25"]  # bf16 is emulated on many a processor


def table(out: Path) -> str:
    return pd.read_csv(out / "results.csv", dtype=str).drop(columns=list(PROVENANCE)).to_csv(index=False)


def command(out: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "twore.recipes.cifar_scaling", *SMALL, "--out", str(out), "--workers", str(workers)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_one_and_two_workers_and_serial_agree(tmp_path, precision):
    for name, options in (("serial", ["--executor=serial"]), ("one", ["--workers=1"]), ("two", ["--workers=2"])):
        flags = [*SMALL, *FASTER, f"--numerics.precision={precision}", *options]
        assert main(RECIPE, [*flags, "--out", str(tmp_path / name)]) == 0
    assert table(tmp_path / "serial") == table(tmp_path / "one") == table(tmp_path / "two")


@pytest.mark.slow
def test_killed_at_three_moments_and_resumed(tmp_path):
    assert main(RECIPE, [*SMALL, "--executor=serial", "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    kills = 0
    for done in (0, 1, 4):  # cells on disk when it is killed
        process = subprocess.Popen(command(out, 2), stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("store/cells/*/*.json"))) < done:
            time.sleep(0.02)
        if done == 0:
            while process.poll() is None and not list(out.glob("store/trajectories/*/epoch-*")):
                time.sleep(0.02)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait()
    assert kills == 3
    assert subprocess.run(command(out, 2), stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert table(out) == table(tmp_path / "whole")


@pytest.mark.parametrize("content", [b"", b"PAR1 this is no parquet file"])
def test_corrupt_data_is_one_sentence(tmp_path, capsys, content):
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    assert main(RECIPE, [*SMALL, "--task.dataset=cifar10", "--data", str(tmp_path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "train-00000-of-00001.parquet" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not (out / "results.csv").exists()
