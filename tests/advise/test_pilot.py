"""A pilot on checkpoints that were brought in: resumes after kill -9, pays only for what is new, trains none dense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from labelled import LabelledTask
from runs import contents, torch_run
from toy import CPU

from twore.advise import Pilot, TaskProbe, advise
from twore.training import Training

TESTS = Path(__file__).parents[1]
FINETUNE = Training(epochs=1, batch_size=16, lr=0.05, schedule="constant", drops=())
NAMES = ["net-1.pt", "net-2.pt", "net-3.pt"]


# of two checkpoints a pilot of 3 fine-tunes both: the 2 best, and the last
def ask(run: Path, cache: Path, ratios: tuple[float, ...] = (0.5, 0.9), **changes: object):
    pilot = replace(Pilot(FINETUNE, k=3, executor="serial"), **changes)
    return advise(run, ratios=ratios, cache=cache, probe=TaskProbe(LabelledTask(), numerics=CPU), pilot=pilot)


def cells(folder: Path) -> dict[str, int]:
    """Fine-tuned cells below a folder: key -> when it was written."""
    return {path.stem: path.stat().st_mtime_ns for path in folder.rglob("cells/*/*.json")}


def test_another_ratio_or_checkpoint_costs_only_its_own_cells(tmp_path: Path) -> None:
    run = torch_run(tmp_path / "run", LabelledTask().build(), NAMES[:2])
    before, cache = contents(run), tmp_path / "cache"
    first = ask(run, cache, (0.5,))
    done = cells(cache)
    assert len(done) == len(first.cells) == 2 and contents(run) == before
    best, other = first.cells.sort_values("valid_score", ascending=False).itertuples()
    words = f"net-{best.epoch:g}.pt {best.valid_score:.1f}; net-{other.epoch:g}.pt {other.valid_score:.1f}"
    assert f"fine-tuned: {words}\n" in first.to_text() and f"<dd>{words}</dd>" in first.to_html()
    second = ask(run, cache)
    assert len(second.cells) == 4 and done.items() <= cells(cache).items()
    assert any("2 of 4 cells fine-tuned now" in cost for cost in second.costs)
    assert second.cells[second.cells["ratio"] == 0.5]["score"].tolist() == first.cells["score"].tolist()


def test_a_lost_copy_is_brought_in_again_and_never_trained(tmp_path: Path) -> None:
    run = torch_run(tmp_path / "run", LabelledTask().build(), NAMES[:2])
    first = ask(run, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("epoch-0001.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    for path in (tmp_path / "cache").rglob("cells/*/*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="no fine-tuning of the pilot worked: .* run the command .* again"):
        ask(run, tmp_path / "cache")
    again = ask(run, tmp_path / "cache")
    assert again.cells.equals(first.cells)


def test_it_needs_a_task_and_a_way_to_fine_tune(tmp_path: Path) -> None:
    run = torch_run(tmp_path / "run", LabelledTask().build(), NAMES)
    with pytest.raises(ValueError, match="a pilot fine-tunes, which takes a task"):
        advise(run, cache=tmp_path / "cache", pilot=Pilot(FINETUNE))
    with pytest.raises(ValueError, match="for an epoch at least"):
        Pilot(replace(FINETUNE, epochs=0))
    with pytest.raises(ValueError, match="compares two fine-tuned checkpoints"):
        ask(run, tmp_path / "cache", k=1)


def start(run: Path, cache: Path, config: Path) -> subprocess.Popen:
    words = [
        "advise", run, "--cache", cache, "--ratios", 0.5, 0.9, "--json", "--task", "labelled:LabelledTask",
        "--config", config, "--task.pause", 0.2, "--numerics.device=cpu", "--pilot", 3, "--finetune.epochs", 4,
    ]  # fmt: skip
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), str(TESTS / "advise")])
    return subprocess.Popen(
        [sys.executable, "-m", "twore.cli", *map(str, words)], env={**os.environ, "PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    run = torch_run(tmp_path / "run", LabelledTask().build(), NAMES)
    config = tmp_path / "how.yaml"
    config.write_text("finetune: {epochs: 9, batch_size: 16, lr: 0.05, schedule: constant, drops: []}\n")
    before = contents(run)
    whole, said = start(run, tmp_path / "undisturbed", config).communicate(timeout=600)
    number = len(cells(tmp_path / "undisturbed"))
    assert "pilot: " in said and number >= 4, said
    process = start(run, tmp_path / "killed", config)
    while process.poll() is None and not cells(tmp_path / "killed"):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = cells(tmp_path / "killed")
    assert 0 < len(done) < number
    again, said = start(run, tmp_path / "killed", config).communicate(timeout=600)
    assert done.items() <= cells(tmp_path / "killed").items()  # what was done is not done again
    assert json.loads(again)["advice"] == json.loads(whole)["advice"]
    assert contents(run) == before
