"""The translation recipe: its presets, and a small study through the command line, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from twore.cli import main as cli
from twore.recipes.command import main, parse
from twore.recipes.wmt14_regime import RECIPE, atlas, paper, quick
from twore.study import load_study, save_study
from twore.study.config import dump_study
from twore.study.tables import PROVENANCE

TINY = [
    "--task.pairs", "200", "--task.vocab_size", "300", "--task.d_model", "16", "--task.layers", "1",
    "--task.heads", "2", "--task.ffn", "16", "--task.eval_pairs", "20", "--task.similarity_pairs", "20",
    "--dense.epochs", "3", "--checkpoints", "[1, 3]", "--ratios", "[0.5, 0.9]", "--permutations", "1",
    "--workers", "2",
]  # fmt: skip


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_report_is_one_training_and_456_cells(norm, capsys):
    assert main(RECIPE, ["--preset", "paper", "--task.norm", norm, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "1 trainings, 456 cells (19 checkpoints x 8 ratios x 3 fine-tune seeds)" in said
    assert f"norm={norm}" in said and "time: about" in said
    assert "disk: 7." in said  # GB: 20 checkpoints of 94 M weights


def test_the_atlas_has_eight_settings_and_more():
    study = atlas()
    assert len({trajectory.setting for trajectory in study.trajectories}) == 8
    assert len(study.trajectories) == 10


def test_the_paper_is_the_report():
    study = paper()
    assert (study.dense.epochs, study.finetune.epochs, study.dense.batch_size) == (19, 5, 1_500)
    assert (study.task.layers, study.task.heads, study.task.d_model, study.task.norm) == (6, 8, 512, "post")
    assert study.finetune.clock == "restart"


@pytest.mark.parametrize("plan", [["--dry-run"], []])
def test_dense_stacks_are_refused_before_anything_is_done(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "TranslationTask cannot be trained in one stack"
    assert main(RECIPE, [*TINY, "--numerics.dense_stack", "2", *plan]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and "use numerics.dense_stack 1" in said and len(said.splitlines()) == 1
    study = yaml.safe_load(dump_study(parse(RECIPE, TINY)[1]))
    study["numerics"]["dense_stack"] = 2
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert cli(["run", "study.yaml", *plan]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_named_fine_tuning_goes_on_from_the_checkpoint():
    _, study = parse(RECIPE, ["--finetune-setting", "continue"])
    assert study.finetune.clock == "continue"


def test_without_files_and_network_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TWORE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: "no connection to hub")
    monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("the hub's client was asked, for 20 s"))
    assert main(RECIPE, ["--preset", "cpu", "--out", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("wmt14_regime: cannot fetch WMT14 de-en") and "--data DIR or TWORE_DATA" in last


def test_a_vocabulary_that_is_too_large_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    for name in ("train.de", "train.en", "test.de", "test.en"):
        (folder / name).write_text("Eins zwei drei.\nVier fünf.\n", encoding="utf-8")
    flags = ["--task.dataset", "mine", "--task.pairs", "0", "--task.chosen_on", "", "--data", str(tmp_path / "data")]
    assert main(RECIPE, [*flags, "--out", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"vocab_size=800 is larger than the training text of text files in {folder} supports: at most" in last


def test_flags_are_not_abbreviated(capsys):
    assert main(RECIPE, ["--task.layer", "3", "--dry-run"]) == 2
    assert "--task.layers" in capsys.readouterr().err


def test_translation_keys_are_golden(tmp_path):
    """Stored results are found by these keys: see tests/study/test_identity.py."""
    study = replace(quick(), numerics=replace(quick().numerics, device="cpu"), data_fingerprint="sha256:golden")
    trajectory = study.trajectories[0]
    group = next(trajectory.groups())
    assert [trajectory.key, group.cell_key(0), group.pairs_key, group.probe_key] == GOLDEN
    save_study(study, tmp_path / "study.yaml")
    assert load_study(tmp_path / "study.yaml").trajectories[0].key == trajectory.key


# trajectory, cell, pairs, probe
GOLDEN = ["49adde1ee9966874b87f", "b3c2c3f1b94a0da3ac89", "27edb7c6c71ef0cfe898", "2d90fea27ea8e2afbd7d"]


@pytest.mark.slow
def test_a_killed_study_ends_as_an_undisturbed_one(tmp_path):
    """kill -9 of driver and workers while it fine-tunes; the same command goes on; all tables are the same."""
    environment = {**os.environ, "TWORE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def command(out):
        return [sys.executable, "-m", "twore.recipes.wmt14_regime", *TINY, "--out", str(tmp_path / out)]

    subprocess.run(command("whole"), env=environment, check=True, capture_output=True)
    job = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    cells = tmp_path / "killed" / "store" / "cells"
    while not list(cells.glob("*/*.json")):
        assert job.poll() is None
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    assert len(list(cells.glob("*/*.json"))) < 8
    subprocess.run(command("killed"), env=environment, check=True, capture_output=True)
    for name in ("results", "checkpoints", "probes", "pairs", "curves", "samples"):
        tables = [pd.read_csv(tmp_path / out / f"{name}.csv").drop(columns=[*PROVENANCE], errors="ignore")
                  for out in ("whole", "killed")]  # fmt: skip
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (tmp_path / "killed" / "figures" / "figure-3b-regimes.png").exists()
    assert "tok:13a" in pd.read_csv(tmp_path / "killed" / "results.csv")["bleu_signature"][0]
