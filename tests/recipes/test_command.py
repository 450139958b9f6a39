"""The recipe's command line, in this process: plans, precedence, errors in one sentence, a small run to the end."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from twore.cli import main as cli
from twore.recipes.cifar_scaling import RECIPE
from twore.recipes.command import main, parse
from twore.study import load_study

SMALL = [
    "--dense.epochs=2", "--dense.drops=[1]", "--checkpoints=[1,2]", "--extra_checkpoints=[]", "--ratios=[0.5,0.9]",
    "--finetune.epochs=1", "--finetune.drops=[]", "--dense_seeds=[0]", "--task.width=4", "--permutations=2",
    "--executor=serial",
]  # fmt: skip


def study_of(*arguments):
    return parse(RECIPE, arguments)[1]


def test_plan_of_the_report(capsys):
    assert main(RECIPE, ["--preset", "paper", "--dry-run"]) == 0
    assert "7 trainings, 3,024 cells (16 checkpoints x 9 ratios x 3 fine-tune seeds)" in capsys.readouterr().err


def test_a_plan_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(RECIPE, ["--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_flag_over_config_over_preset(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("dense: {lr: 0.05, epochs: 30, drops: [10]}\ncheckpoints: [10, 30]\n")
    study = study_of("--config", str(config), "--dense.lr", "0.2")
    assert (study.dense.lr, study.dense.epochs, study.dense.batch_size) == (0.2, 30, 16)
    assert study.checkpoints == (10, 30)
    assert study.task == RECIPE.presets["quick"]().task


def test_named_fine_tune_settings():
    assert study_of("--preset=paper", "--finetune-setting=icml").finetune.epochs == 160
    assert study_of("--preset=paper", "--finetune-setting=report").finetune.lr == 1e-3
    assert (
        study_of(
            "--preset=paper", "--finetune-setting=icml", "--finetune.epochs=10", "--finetune.drops=[5]"
        ).finetune.lr
        == 0.1
    )


def test_settings_from_the_command_line():
    study = study_of("--settings", "[{task.depth: 14}, {task.depth: 8}]")
    assert [t.columns["depth"] for t in study.trajectories] == [14] * 3 + [8] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "papr"], "did you mean paper"),
        (["--dense.lrr", "3"], "did you mean --dense.lr"),
        (["--dense.lr", "fast"], "dense.lr"),
        (["--task.depth", "9"], "6n+2"),
        (["--ratios", "[1.5]"], "ratios"),
        (["--ratios", "much"], "ratios"),
        (["--workers", "0"], "workers is at least 1"),
        (["--executor", "slurm"], "executor"),
        (["--device", "tpu"], "device"),
        (["--finetune-setting", "icmll"], "did you mean icml"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data", "nowhere"], "nowhere"),
        (["--settings", "[{task.dept: 8}]"], "did you mean task.depth"),
    ],
)
def test_a_wrong_command_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(RECIPE, arguments) == 2
    said = capsys.readouterr().err.strip()
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_out_that_is_a_file(tmp_path, capsys, place):
    (tmp_path / "file").write_text("mine")
    assert main(RECIPE, [*SMALL, "--out", str(tmp_path / place)]) == 2
    assert "name a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_data_names_the_way_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TWORE_DATA", raising=False)
    assert main(RECIPE, [*SMALL, "--task.dataset=cifar10", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--data" in said
    assert "Traceback" not in said


def test_a_run_to_the_end_and_its_report(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(RECIPE, [*SMALL, "--out", str(out)]) == 0
    assert len(pd.read_csv(out / "results.csv")) == 8
    assert (out / "report.html").stat().st_size > 10_000
    assert {"figure-2-scores.png", "figure-3a-regimes.svg"} <= {path.name for path in (out / "figures").iterdir()}
    assert "report: " in capsys.readouterr().err
    before = (out / "results.csv").read_bytes()
    assert cli(["run", str(out / "study.yaml"), "--executor", "serial"]) == 0
    assert (out / "results.csv").read_bytes() == before
    (out / "report.html").unlink()
    assert cli(["report", str(out)]) == 0
    assert (out / "report.html").exists()
    assert load_study(out / "study.yaml").data_fingerprint.startswith("sha256:")


def test_report_of_nothing(tmp_path, capsys):
    assert cli(["report", str(tmp_path)]) == 2
    assert "results.csv" in capsys.readouterr().err


def test_the_help_text_says_every_field(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(RECIPE, ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for words in ("--preset", "--data", "--dense.lr", "Completed epochs after which the rate drops", "--settings"):
        assert words in text


def test_folders_of_the_recipe():
    root = Path(__file__).parents[2]
    assert (root / "recipes" / RECIPE.name / "README.md").exists()
