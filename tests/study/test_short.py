"""A short pilot beside a study: its dense runs are those of the study, its cells are its own."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from test_probes import LabelledTask, run, study
from toy import ToyTask

from twore.cli import main
from twore.study import ConfigError, Study
from twore.study.short import share_dense_runs, short_study
from twore.training import Training


def test_settings_that_differ_in_fine_tuning_alone_become_one():
    base = Study(task=ToyTask(), settings=(
        {"dense_seeds": [0, 1]}, {"task.hidden": 4}, {"finetune.lr": 0.5},
        {"task.hidden": 4, "finetune.lr": 0.5, "finetune_seeds": [0, 4]},
        {"dense.lr": 0.5, "finetune.lr": 0.5},
    ), finetune_seeds=(0, 1, 2))  # fmt: skip
    short = short_study(base, {"epochs": 1, "share": 0.5})
    assert short.settings == ({"dense_seeds": [0, 1]}, {"task.hidden": 4}, {"dense.lr": 0.5})
    assert (short.finetune.epochs, short.finetune.share, short.finetune.lr) == (1, 0.5, base.finetune.lr)
    assert short.finetune_seeds == (5,)  # none that the study, or a setting of it, is judged on
    assert short_study(base, {"epochs": 1}, seeds=2).finetune_seeds == (5, 6)
    assert {t.key for t in short.trajectories} == {t.key for t in base.trajectories}
    assert not {k for t in short.trajectories for g in t.groups() for k in g.cell_keys.values()} & {
        k for t in base.trajectories for g in t.groups() for k in g.cell_keys.values()
    }


def test_settings_of_fine_tuning_alone_leave_one():
    base = Study(task=ToyTask(), settings=({"finetune.lr": 0.5}, {"finetune.lr": 0.1}))
    assert short_study(base, {"epochs": 1}).settings == ({},)


def test_a_field_that_does_not_exist_is_said():
    with pytest.raises(ConfigError, match="did you mean finetune.epochs"):
        short_study(Study(task=ToyTask()), {"epoch": 1})
    with pytest.raises(ConfigError, match="in \\(0, 1\\]"):
        short_study(Study(task=ToyTask()), {"share": 0.0})


def test_no_dense_run_is_trained_again(tmp_path):
    full, out = tmp_path / "full", tmp_path / "short"
    made = study(settings=({}, {"task.norm": False}), dense_seeds=(0, 1))
    before = run(made, full)
    assert share_dense_runs(full, out) > 0
    assert share_dense_runs(full, out) == 0
    after = run(short_study(made, {"epochs": 1, "share": 0.34}), out)
    pd.testing.assert_frame_equal(after.checkpoints, before.checkpoints)  # provenance too: the same records
    assert len(after.cells) == len(before.cells) / 2
    assert not (out / "store" / "cells").samefile(full / "store" / "cells")


def test_a_share_of_the_epoch_is_so_many_updates(tmp_path):
    """48 examples in batches of 16 are 3 updates; a third is one."""
    made = replace(study(task=LabelledTask()), finetune=Training(epochs=2, batch_size=16, drops=(), share=0.34))
    probes = run(made, tmp_path).probes
    assert set(probes["cost"].round(12)) == {round(2 * 48 / (3 * 2 * 16), 12)}  # of three passes an example
    with pytest.raises(ValueError, match="whole pass"):
        study(dense=Training(epochs=2, share=0.5))


def test_the_command_runs_it_and_the_scoreboard_reads_it(tmp_path, capsys):
    full, out = tmp_path / "full", tmp_path / "short"
    run(study(), full)
    assert main(["short", str(full), "--out", str(out), "epochs=1", "lr=0.2", "schedule=constant"]) == 0
    assert len(pd.read_csv(out / "results.csv")) == 4
    assert main(["score", str(full), "--pilot-from", str(out), "--out", str(tmp_path / "scores")]) == 0
    board = pd.read_csv(tmp_path / "scores" / "scoreboard.csv").set_index("predictor")
    assert board.loc["short pilot: largest short_score", "cost"] == pytest.approx(0.5 / 2)  # half the epochs, one of 2
    capsys.readouterr()
    assert main(["short", str(full), "--out", str(full), "epochs=1"]) == 2
    assert main(["short", str(full), "--out", str(full / "store" / "short"), "epochs=1"]) == 2
    assert not (full / "store" / "short").exists()
    assert main(["short", str(full), "--out", str(out), "epochs"]) == 2
    assert "FIELD=VALUE" in capsys.readouterr().err


def test_the_folder_of_another_study_is_left_as_it_is(tmp_path, capsys):
    full, other = tmp_path / "full", tmp_path / "other"
    run(study(), full)
    run(study(dense_seeds=(7,)), other)
    before = sorted(other.rglob("*"))
    assert main(["short", str(full), "--out", str(other), "epochs=1"]) == 2
    assert "holds another study" in capsys.readouterr().err
    assert sorted(other.rglob("*")) == before


def files(folder):
    """Path -> contents and times of every file of a folder."""
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_the_study_is_only_read(tmp_path):
    """Also where a record of its store is damaged, which the short pilot makes again in its own."""
    full, out = tmp_path / "full", tmp_path / "short"
    run(study(), full)
    broken = next((full / "store" / "trajectories").rglob("epoch-0002.safetensors"))
    broken.write_bytes(broken.read_bytes()[:-8])
    before = files(full)
    assert main(["short", str(full), "--out", str(out), "epochs=1"]) == 0
    assert len(pd.read_csv(out / "results.csv")) == 4
    assert files(full) == before
