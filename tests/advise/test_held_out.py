"""A calibration tried on run folders that it was not made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from probed import many

from twore.advise.calibrating import calibrate
from twore.advise.calibration import shipped
from twore.advise.deciding import conclude
from twore.advise.held_out import held_out, main
from twore.advise.trials import collect


@pytest.fixture(scope="module")
def trials():
    return [replace(trial, kind="batchnorm") for trial in collect(many(6))]


def test_verdicts_are_those_of_the_calibration_given(trials):
    known = [trial for trial in trials if trial.setting not in ("setting 0", "setting 1")]
    others = [trial for trial in trials if trial not in known]
    calibration = calibrate(known)
    rows = held_out(others, calibration)
    assert set(rows["setting"]) == {"setting 0", "setting 1"}
    said = [verdict for trial in others for verdict in conclude(trial.seen, calibration, kind="batchnorm")]
    assert rows["confidence"].tolist() == pytest.approx([verdict.confidence for verdict in said], nan_ok=True)
    heavy = rows[(rows["level"] == "batches") & (rows["ratio"] == 0.9)].set_index("setting")
    assert heavy["confidence"].nunique() == 1  # neither setting is in it, so it is as sure of the one as of the other
    assert heavy.loc["setting 1", "hit"] and not heavy.loc["setting 0", "hit"]


def folder_of(setting, folder, task="cifar"):
    """A run folder that holds this setting's tables."""
    folder.mkdir(parents=True)
    for name in ("results", "checkpoints", "probes"):
        getattr(setting, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "study.yaml").write_text(f"task: {{kind: '{task}'}}\n")
    return str(folder)


def test_the_command(tmp_path, capsys):
    folders = [folder_of(setting, tmp_path / f"run{i}") for i, setting in enumerate(many(4))]
    mine = tmp_path / "calibration.json"
    mine.write_text(calibrate([replace(t, kind="batchnorm") for t in collect(many(6))]).to_json())
    assert main([*folders, "--calibration", str(mine)]) == 0
    out, err = capsys.readouterr()
    lines = {line[:12].strip(): line.split() for line in out.splitlines()}
    assert "4 settings, 4 dense runs" in out and "batchnorm" in lines and not err
    assert lines["batches"][1] == "8" and lines["weights"][1:] == ["8", "0", "%"]
    assert "nan" not in out


def test_a_task_of_ones_own_says_its_kind(tmp_path, capsys):
    folder = folder_of(many(1)[0], tmp_path / "mine", task="mine:Task")
    assert main([folder]) == 2
    assert "say it with --kind, batchnorm or outputs" in capsys.readouterr().err
    assert main([folder, "--kind", "outputs"]) == 0
    assert "\noutputs\n" in capsys.readouterr().out


def test_a_folder_that_the_calibration_knows_is_told(tmp_path, capsys):
    name = next(iter(shipped().made["folders"]))
    assert main([folder_of(many(1)[0], tmp_path / name)]) == 0
    assert "is part of this calibration" in capsys.readouterr().err


def test_what_is_no_calibration_is_refused(tmp_path, capsys):
    (tmp_path / "c.json").write_text("[]")
    assert main([str(tmp_path), "--calibration", str(tmp_path / "c.json")]) == 2
    assert capsys.readouterr().err.startswith("twore: ")
    assert main([str(tmp_path), "--calibration", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_folder_that_added_nothing_to_it_is_held_out(tmp_path, capsys):
    name = next(name for name, added in shipped().made["folders"].items() if not added)
    assert main([folder_of(many(1)[0], tmp_path / name)]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "found"),
    [("task: [", "study.yaml is damaged"), ("- a list", "say it with --kind"), ("task: words", "say it with --kind")],
)
def test_an_odd_study_is_one_sentence(tmp_path, capsys, study, found):
    folder = folder_of(many(1)[0], tmp_path / "run")
    (tmp_path / "run" / "study.yaml").write_text(study)
    assert main([folder]) == 2
    said = capsys.readouterr().err
    assert found in said and said.count("\n") == 1


def test_what_tables_are_there_is_what_is_tried(tmp_path, capsys):
    folder = folder_of(many(1)[0], tmp_path / "run")
    (tmp_path / "run" / "probes.csv").unlink()
    assert main([folder]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]] == ["level", "weights"]
    (tmp_path / "run" / "checkpoints.csv").unlink()
    assert main([folder]) == 2
    assert "they need checkpoints.csv or probes.csv" in capsys.readouterr().err
