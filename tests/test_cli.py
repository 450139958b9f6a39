"""The `twore` command in this process: each command's way through, and every mistake as one sentence."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from records import contents, fill

from twore.cli import main
from twore.recipes import command
from twore.study import save_study


@pytest.fixture
def run_folder(toy_study, tmp_path):
    fill(toy_study, tmp_path / "run", lambda group: group.ratio == 0.3)
    return tmp_path / "run"


def test_status(run_folder, capsys):
    assert main(["status", str(run_folder)]) == 0
    assert "cells              8 of       16   50 %" in capsys.readouterr().out
    assert main(["status", str(run_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"]["missing"] == 8


def test_watching_ends_with_the_study(toy_study, tmp_path, capsys):
    fill(toy_study, tmp_path)
    assert main(["status", str(tmp_path), "--watch", "1000"]) == 0
    assert "finished" in capsys.readouterr().out


def test_merge_writes_tables_and_report(toy_study, run_folder, tmp_path, capsys):
    fill(toy_study, tmp_path / "other", lambda group: group.ratio == 0.8)
    assert main(["merge", str(run_folder), str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 0
    assert "16 cells" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == 16
    assert (tmp_path / "out" / "report.html").exists()


def test_a_plan_of_a_study_file(toy_study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TWORE_DATA", "nowhere")  # a plan needs no data
    save_study(toy_study, tmp_path / "study.yaml")
    before = contents(tmp_path)
    assert main(["run", str(tmp_path / "study.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "2 trainings, 16 cells" in said
    assert "disk: " in said
    assert contents(tmp_path) == before


def test_options_of_run_are_passed_on(toy_study, tmp_path, monkeypatch):
    given = {}

    def run_study(study, out, **options):
        given.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_study", run_study)
    monkeypatch.delenv("TWORE_DATA", raising=False)
    save_study(toy_study, tmp_path / "study.yaml")
    options = ["--shard", "2/8", "--time-limit", "60", "--workers", "3", "--only-failed"]
    assert main(["run", str(tmp_path / "study.yaml"), *options]) == 130
    assert given == {
        "workers": 3, "executor": "process", "slots": None, "ray_address": None, "data": None, "shard": (2, 8),
        "time_limit": 60.0, "only_failed": True, "tensorboard": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "DIR/nowhere"], "no study file"),
        (["status", "DIR/run", "--watch", "0"], "--watch"),
        (["merge", "DIR/run", "DIR/nowhere", "--out", "DIR/out"], "no study file"),
        (["merge", "DIR/run", "--out", "DIR/run"], "name another folder"),
        (["merge", "DIR/run", "--out", "DIR/file"], "name a folder"),
        (["report", "DIR/nowhere"], "results.csv"),
        (["run", "DIR/nowhere.yaml"], "no study file"),
        (["run", "DIR/run/study.yaml", "--shard", "0/2"], "I from 1 to N"),
        (["run", "DIR/run/study.yaml", "--shard", "two"], "I/N"),
        (["run", "DIR/run/study.yaml", "--time-limit", "-1"], "--time-limit"),
        (["run", "DIR/run/study.yaml", "--executor", "slurm"], "--executor is one of"),
        (["run", "DIR/run/study.yaml", "--workers", "0"], "--workers is at least 1"),
        (["run", "DIR/run/study.yaml", "--data", "DIR/nowhere"], "nowhere"),
    ],
)
def test_a_wrong_command_is_one_sentence(run_folder, tmp_path, capsys, arguments, words):
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    assert main([word.replace("DIR", str(tmp_path)) for word in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
    assert contents(tmp_path) == before


def test_only_failed(toy_study, tmp_path, monkeypatch):
    """Of what is missing, only the group that failed before is computed."""
    from twore.study import Store, run_study

    store = Store(tmp_path)
    run_study(toy_study, tmp_path, executor="serial", quiet=True)
    first, second, *_ = toy_study_groups(tmp_path)
    for group in (first, second):
        store.drop("cells", group.cell_key(0))
    record = {"reason": "OSError: full", "attempts": 1, "details": "", "provenance": {"host": "a", "finished_at": ""}}
    store.put("failures", first.pairs_key, record)
    monkeypatch.delenv("TWORE_DATA", raising=False)
    monkeypatch.setattr("twore.report.write_report", lambda out: out)
    assert main(["run", str(tmp_path / "study.yaml"), "--executor", "serial", "--only-failed"]) == 0
    assert store.get("cells", first.cell_key(0)) is not None
    assert store.get("cells", second.cell_key(0)) is None


def toy_study_groups(out):
    from twore.study import load_study

    return [group for t in load_study(out / "study.yaml").trajectories for group in t.groups()]
