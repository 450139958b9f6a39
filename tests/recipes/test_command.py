"""The recipe's command line, in this process: plans, precedence, errors in one sentence, a small run to the end."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from twore.cli import main as cli
from twore.recipes.cifar_scaling import RECIPE
from twore.recipes.command import main, parse, parse_shard
from twore.study import ConfigError, load_study

SMALL = [
    "--dense.epochs=2", "--dense.drops=[1]", "--checkpoints=[1,2]", "--extra_checkpoints=[]", "--ratios=[0.5,0.9]",
    "--finetune.epochs=1", "--finetune.drops=[]", "--dense_seeds=[0]", "--task.width=8", "--permutations=2",
    "--executor=serial",
]  # fmt: skip


def study_of(*arguments):
    return parse(RECIPE, arguments)[1]


def test_plan_of_the_report(capsys):
    assert main(RECIPE, ["--preset", "paper", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "7 trainings, 3,024 cells (16 checkpoints x 9 ratios x 3 fine-tune seeds)" in said
    assert [line.split()[0] for line in said.splitlines()[2:6]] == ["depth=20", "depth=38", "depth=56", "depth=110"]
    assert "right within a factor of 3" in said
    assert "disk: " in said


@pytest.mark.parametrize("calibrate", [[], ["--calibrate"]])
def test_a_plan_writes_nothing(tmp_path, monkeypatch, capsys, calibrate):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("twore.study.calibrate.BUDGET", 0.01)
    assert main(RECIPE, [*SMALL, "--dry-run", *calibrate]) == 0
    assert list(tmp_path.iterdir()) == []
    assert ("training updates measured here" in capsys.readouterr().err) == bool(calibrate)


@pytest.mark.parametrize("flag", ["--numerics.stack=4", "--numerics.dense_stack=2", "--name=same"])
def test_a_plan_says_that_stacks_are_not_counted(capsys, flag):
    assert main(RECIPE, [*SMALL, "--dry-run", flag]) == 0
    assert ("stacks are not counted" in capsys.readouterr().err) == ("stack" in flag)


def test_a_plan_needs_no_data(monkeypatch, capsys):
    monkeypatch.setenv("TWORE_DATA", "nowhere")
    assert main(RECIPE, ["--preset", "cpu", "--dry-run", "--shard", "1/4"]) == 0
    assert "in each of 4 shards" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), ("2/8", (2, 8)), ("8/8", (8, 8)), (None, None)])
def test_shards(text, shard):
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3", "", "1.0/2"])
def test_no_shards(text):
    with pytest.raises(ConfigError, match="--shard is I/N"):
        parse_shard(text)


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
        (["--shard", "3/2"], "--shard is I/N"),
        (["--time-limit", "0"], "--time-limit is a number of seconds above 0"),
        (["--time-limit", "soon"], "time_limit"),
        (["--time-limit", "5", "--executor", "serial"], "--time-limit needs worker processes"),
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


@pytest.mark.parametrize("calibrate", [[], ["--dry-run", "--calibrate"]])
def test_a_device_that_is_not_here(tmp_path, monkeypatch, capsys, calibrate):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(RECIPE, [*SMALL, "--device", "cuda", "--out", str(tmp_path / "out"), *calibrate]) == 2
    assert "use --device cpu or auto" in capsys.readouterr().err.splitlines()[-1]


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
    assert text.startswith("usage: python -m twore.recipes.cifar_scaling [options] [--FIELD VALUE ...]\n\n")
    for words in ("--preset", "--data", "--dense.lr", "Completed epochs after which the rate drops", "--settings"):
        assert words in text


def test_folders_of_the_recipe():
    folder = Path(__file__).parents[2] / "recipes" / RECIPE.name
    assert (folder / "README.md").exists()
    for launcher in ("laptop.sh", "one_gpu.sh", "slurm_array.sbatch", "slurm_ray.sbatch"):
        subprocess.run(["bash", "-n", folder / "launch" / launcher], check=True)


def test_the_array_job_runs_its_shard_and_survives_its_end(tmp_path):
    """With stand-ins for python and scontrol: the flags are passed on; on SIGTERM the job waits, then is requeued."""
    script = Path(__file__).parents[2] / "recipes" / RECIPE.name / "launch" / "slurm_array.sbatch"
    stubs = {
        "python": """echo "$@" > called
                     trap "sleep 0.2; echo stopped > stopped; exit 143" TERM
                     while :; do sleep 0.05; done""",
        "scontrol": 'test -e stopped && echo "$@" > requeued',
    }
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "71", "SLURM_JOB_ID": "74", "SHARDS": "8"}
    environment = {
        **os.environ,
        **array,
        "PYTHON": str(tmp_path / "python"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    job = subprocess.Popen(["bash", script, "--preset", "paper"], cwd=tmp_path, env=environment)
    try:
        while not (tmp_path / "called").exists() or not (tmp_path / "called").read_text():
            assert job.poll() is None
            time.sleep(0.02)
        assert "--shard 3/8" in (tmp_path / "called").read_text()
        assert (tmp_path / "called").read_text().strip().endswith("--preset paper")
        job.terminate()
        assert job.wait(timeout=60) == 0
    finally:
        job.kill()
    assert (tmp_path / "requeued").read_text().split() == ["requeue", "71_3"]


def test_the_ray_job_starts_a_cluster_and_its_driver(tmp_path):
    """With stand-ins: a head and one more node, the driver joins the head's address; its end is the job's."""
    script = Path(__file__).parents[2] / "recipes" / RECIPE.name / "launch" / "slurm_ray.sbatch"
    stubs = {
        "srun": """while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done
                   echo "$node $*" >> steps
                   case "$*" in
                       hostname*) echo 10.0.0.7 ;;
                       *python*) until grep -q "b .*ray start" steps; do sleep 0.02; done; exit 3 ;;
                   esac""",
        "scontrol": '[[ $1 == show ]] && printf "a\\nb\\n"',
    }
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    given = {"SLURM_JOB_ID": "20071", "SLURM_JOB_NODELIST": "[ab]", "SLURM_GPUS_ON_NODE": "2", "SLOTS": "3"}
    environment = {**os.environ, **given, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python"}
    command = ["bash", script, "--preset", "paper"]
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=60).returncode == 3
    steps = (tmp_path / "steps").read_text()
    assert "a ray start --head --block --node-ip-address=10.0.0.7 --port=20071" in steps
    assert "b ray start --block --address=10.0.0.7:20071 --num-cpus=8 --num-gpus=2" in steps
    driver = next(line for line in steps.splitlines() if "python" in line)
    assert driver.startswith(
        "a python -m twore.recipes.cifar_scaling --executor ray --ray-address 10.0.0.7:20071 --slots 3"
    )
    assert driver.endswith("--preset paper")
