"""The scripts in examples/: they are what docs/own_task.md shows, short, and whole studies."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from toy import CPU

from twore.study import load_study, run_study
from twore.tasks import Task

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
NAMES = [script.stem for script in SCRIPTS]


@pytest.fixture(params=NAMES)
def example(request, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module(request.param)
    del sys.modules[request.param]


def test_the_page_shows_them_as_they_are():
    page = (ROOT / "docs" / "own_task.md").read_text()
    for script in SCRIPTS:
        assert f"```python\n{script.read_text()}```\n" in page, script.name


def test_they_are_short():
    lines = {script.stem: sum(bool(line.strip()) for line in script.read_text().splitlines()) for script in SCRIPTS}
    assert lines["text_classifier"] < 40, lines


def test_a_small_study_of_it_runs_and_resumes(example, tmp_path):
    study = example.study()
    assert isinstance(study.task, Task)
    fine = replace(study.finetune, epochs=1)
    small = replace(
        study, dense=replace(study.dense, epochs=2, drops=()), finetune=fine, numerics=CPU, permutations=2,
        checkpoints=(1, 2), ratios=(0.5,), finetune_seeds=(0, 1),
    )  # fmt: skip
    results = run_study(small, tmp_path, executor="serial", quiet=True)
    assert results.failures.empty and len(results.cells) == 4
    assert results.cells["density"].sub(0.5).abs().max() < 0.02
    assert results.checkpoints["random_distance"].notna().all() and results.probes["pruned_score"].notna().all()
    assert load_study(tmp_path / "study.yaml").task == study.task  # by its name in the file
    again = run_study(load_study(tmp_path / "study.yaml"), tmp_path, executor="serial", quiet=True)
    assert again.cells["finished_at"].tolist() == results.cells["finished_at"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_script_runs_and_its_study_file_too(name, tmp_path):
    """As a user does it: two workers, killed nowhere; then `twore run` on the study.yaml it left, which is done."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "examples")}
    subprocess.run([sys.executable, ROOT / "examples" / f"{name}.py"], cwd=tmp_path, env=environment, check=True)
    (study,) = tmp_path.glob("runs/*/study.yaml")
    cells = pd.read_csv(study.with_name("results.csv"))
    assert len(cells) == 36 and not study.with_name("failures.csv").exists()
    assert f"{name}:" in study.read_text()
    last = cells[cells["epoch"] == cells["epoch"].max()].groupby("ratio")["score"].mean()
    assert last.iloc[0] > 90 and last.iloc[-1] < last.iloc[0]  # it learns, and heavy pruning costs something
    command = [sys.executable, "-m", "twore.cli", "run", str(study)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert pd.read_csv(study.with_name("results.csv"))["finished_at"].tolist() == cells["finished_at"].tolist()
