"""Checkpoints of two runs are not one trajectory: told by the Trainer's logs, else by the folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from twore.advise.finding import Run, find_checkpoints
from twore.checkpoints import CheckpointError
from twore.cli import main


def trained(folder: Path, steps: Sequence[int], loss: Callable[[int], float] | None, *, every: int = 50) -> Path:
    """checkpoint-* folders whose logs hold `loss` every so many steps; without a loss there is no log."""
    for step in steps:
        place = folder / f"checkpoint-{step}"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"")  # finding opens none
        logged = range(every, step + 1, every) if loss else ()
        history = [{"step": s, "epoch": s / 100, "learning_rate": 0.1, "loss": loss(s)} for s in logged]
        if step == max(steps) and history:
            history.append({"step": step, "train_runtime": 9.0, "train_loss": 0.5})  # logged after the last checkpoint
        content = {"global_step": step, "epoch": step / 100, "log_history": history}
        (place / "trainer_state.json").write_text(json.dumps(content))
    return folder


def names(run: Run) -> list[str]:
    return [one.path.name for one in run.checkpoints]


def first(step: int) -> float:
    return 1 / step


def second(step: int) -> float:
    return 2 / step


def test_two_runs_that_interleave_are_refused_by_their_logs(tmp_path, capsys):
    a = trained(tmp_path / "a", (100, 300, 500), first)
    b = trained(tmp_path / "b", (200, 400), second)
    assert main(["advise", str(a), str(b)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"are of two runs, since their logs differ at step 50 (loss {first(50)} and {second(50)})" in said[0]
    assert said[0].endswith(f"name the folder of one of them alone, {a} or {b}")


def test_a_folder_above_two_runs_names_them(tmp_path):
    trained(tmp_path / "runs" / "a", (100, 300), first)
    trained(tmp_path / "runs" / "b", (200, 400), second)
    (tmp_path / "runs" / "a" / "model.safetensors").write_bytes(b"")  # the final model, which the Trainer saved
    (tmp_path / "runs" / "b" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"holds 2 runs \(a, b\).*name it, such as .*runs.a$"):
        find_checkpoints(tmp_path / "runs")


def test_a_folder_above_one_run_is_that_run(tmp_path):
    trained(tmp_path / "runs" / "a", (100, 300), first)
    (tmp_path / "runs" / "logs").mkdir()
    assert names(find_checkpoints(tmp_path / "runs")) == ["checkpoint-100", "checkpoint-300"]


def test_training_begun_again_in_the_same_folder_is_two_runs(tmp_path):
    run = trained(tmp_path / "run", (100, 300), first)
    trained(run, (200, 400), second)
    with pytest.raises(CheckpointError, match=r"logs differ at step 50 .*name the checkpoints of one of them$"):
        find_checkpoints(run)


def test_one_run_in_two_folders_is_one_run_by_its_logs(tmp_path):
    run = trained(tmp_path / "run", (100, 200, 300, 400), first)
    (tmp_path / "old").mkdir()
    for step in (100, 300):  # to another disk, say
        (run / f"checkpoint-{step}").rename(tmp_path / "old" / f"checkpoint-{step}")
    assert len(find_checkpoints([run, tmp_path / "old"]).checkpoints) == 4


def test_without_logs_folders_that_interleave_are_two_runs_and_others_are_not(tmp_path):
    for name, loss in (("bare", None), ("apart", first)):  # logged at steps that never meet: no evidence either
        a = trained(tmp_path / name / "a", (100, 300), loss, every=70)
        b = trained(tmp_path / name / "b", (200, 400), loss, every=90)
        with pytest.raises(CheckpointError, match="interleave and nothing says that they are of one run"):
            find_checkpoints([a, b])
        later = trained(tmp_path / name / "later", (500, 600), None)
        assert len(find_checkpoints([a, later]).checkpoints) == 4  # went on elsewhere
        assert len(find_checkpoints([a, b / "checkpoint-200"]).checkpoints) == 3  # one that was moved


def test_a_loss_that_was_nan_is_equal_to_itself(tmp_path):
    assert len(find_checkpoints(trained(tmp_path / "run", (100, 200), lambda step: float("nan"))).checkpoints) == 2


def test_a_number_written_in_two_ways_is_one_number(tmp_path):
    run = trained(tmp_path / "run", (100, 200), lambda step: 1.0)
    path = run / "checkpoint-100" / "trainer_state.json"
    path.write_text(path.read_text().replace('"loss": 1.0', '"loss": 1'))
    assert len(find_checkpoints(run).checkpoints) == 2


def test_brackets_without_end_are_no_log(tmp_path):
    run = trained(tmp_path / "run", (100, 200), first)
    (run / "checkpoint-100" / "trainer_state.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="truncated, or not the Trainer's"):
        find_checkpoints(run)
