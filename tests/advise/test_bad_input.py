"""One clear sentence for each thing that cannot be advised on; exit status 2 and nothing on stdout."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from export.tiny_models import build
from runs import contents, hf_run, net, torch_run

from twore.advise import advise
from twore.cli import main


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "cache"))


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command says on stderr: one line, after the lines of cost."""
    status = main(["advise", *map(str, words)])
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("twore: ")]
    assert len(lines) == 1 and lines[0] == err.splitlines()[-1] and "Traceback" not in err
    return lines[0].removeprefix("twore: ")


def test_nothing_there(tmp_path, capsys):
    assert said(capsys, tmp_path / "no").startswith("there is nothing at")


def test_no_checkpoint(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("hello")
    assert "holds no checkpoint: name a folder of checkpoint-* folders, or of" in said(capsys, tmp_path / "run")


def test_one_checkpoint_only(tmp_path, capsys):
    run = torch_run(tmp_path / "run", net(), ["net-1.pt"])
    assert "holds one checkpoint only, net-1.pt" in said(capsys, run)
    assert "holds one checkpoint only, net-1.pt" in said(capsys, run / "net-1.pt")
    single = hf_run(tmp_path / "hf", partial(build, "vit"), steps=(7,))
    assert "holds one checkpoint only, checkpoint-7" in said(capsys, single)


def test_other_architectures(tmp_path, capsys):
    run = torch_run(tmp_path / "run", net(), ["net-1.pt"])
    torch_run(run, net(width=32), ["net-2.pt"])
    words = said(capsys, run)
    assert "net-2.pt is not the model of" in words and "0.weight is (32, 16), there (24, 16)" in words


def test_nan_weights(tmp_path, capsys):
    model = net()
    run = torch_run(tmp_path / "run", model, ["net-1.pt"])
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    torch_run(run, model, ["net-2.pt"])
    words = said(capsys, run)
    assert "net-2.pt: 0.weight holds NaN or inf" in words and "leave this checkpoint out" in words


def test_missing_index_and_shard(tmp_path, capsys):
    run = hf_run(tmp_path / "run", partial(build, "vit"), shard="10KB")
    index = run / "checkpoint-900" / "model.safetensors.index.json"
    kept = index.read_bytes()
    index.unlink()
    assert "no model.safetensors.index.json: copy the index too" in said(capsys, run)
    index.write_bytes(kept)
    shard = sorted(index.parent.glob("model-*.safetensors"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    assert f"{shard.name} is truncated" in said(capsys, run)
    shard.unlink()
    assert f"lacks {shard.name}" in said(capsys, run)


def test_a_pickle_that_would_run_code_is_refused_by_name(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    run = torch_run(tmp_path / "run", net(), ["net-1.pt"])
    torch.save({"weight": Evil()}, run / "net-2.pt")
    words = said(capsys, run)
    assert "net-2.pt is refused" in words and "posix.system" in words
    assert not (tmp_path / "ran").exists()


def test_a_broken_trainer_state(tmp_path, capsys):
    run = hf_run(tmp_path / "run", partial(build, "vit"))
    (run / "checkpoint-900" / "trainer_state.json").write_text('{"global_step": 9')
    assert "trainer_state.json is truncated, or not the Trainer's" in said(capsys, run)


def test_the_same_step_twice(tmp_path, capsys):
    a, b = (torch_run(tmp_path / name, net(), ["net-1.pt", "net-2.pt"]) for name in "ab")
    assert "are both of step 1" in said(capsys, a, b)


def test_two_runs_in_one_folder(tmp_path, capsys):
    run = torch_run(tmp_path / "run", net(), ["a-1.pt", "a-2.pt", "a-3.pt", "b-1.pt", "b-2.pt"])
    words = said(capsys, run)
    assert "a-1.pt" in words and "b-1.pt" in words and "name the checkpoints of one run" in words


def test_options_that_do_not_fit(tmp_path, capsys):
    run = torch_run(tmp_path / "run", net(), ["net-1.pt", "net-2.pt"])
    assert "ratio is the fraction removed, in [0, 1): got 1.5" in said(capsys, run, "--ratios", 1.5)
    assert "--task.width needs a task" in said(capsys, run, "--task.width", 3)
    assert "--pilot needs a task" in said(capsys, run, "--pilot", 2)
    assert "--batches needs a task" in said(capsys, run, "--batches", 2)
    assert "there is no task 'cifra': did you mean cifar?" in said(capsys, run, "--task", "cifra")
    assert "say how: --finetune.epochs" in said(capsys, run, "--task", "toy:ToyTask", "--pilot", 2)
    few = ["--task", "toy:ToyTask", "--pilot", 1, "--finetune.epochs", 1]
    assert "compares two fine-tuned checkpoints a ratio, or more: got 1" in said(capsys, run, *few)
    few[3] = 0
    assert "got 0" in said(capsys, run, *few)
    main(["advise", str(run), "--figure", str(tmp_path / "a.gif")])
    assert "weights:" not in (told := capsys.readouterr().err) and "png, svg, pdf" in told  # before any work
    before = contents(run)
    for flag in ("--html", "--figure", "--cache"):
        assert "where nothing is written: name another place" in said(capsys, run, flag, run / "a.png")
    assert contents(run) == before
    with pytest.raises(ValueError, match="ratios is empty"):
        advise(run, ratios=())


def test_the_json_is_the_contract(tmp_path, capsys):
    run = hf_run(tmp_path / "run", partial(build, "vit"))
    before = contents(run)
    words = [str(run), "--json", "--ratios", "0.9", "0.5", "--html", str(tmp_path / "a.html")]
    assert main(["advise", *words, "--figure", str(tmp_path / "a.png")]) == 0
    out, _ = capsys.readouterr()
    found = json.loads(out)  # one object, and nothing else on stdout
    assert list(found) == ["checkpoints", "advice"]
    assert [c["step"] for c in found["checkpoints"]] == [100, 900, 1000]
    first, last = found["checkpoints"][0], found["checkpoints"][-1]
    assert first["path"] == str(run / "checkpoint-100") and first["distance_from_previous"] is None
    assert isinstance(last["stable_rank"], float) and set(last["mask_distance"]) == {"0.5", "0.9"}
    keys = {"ratio", "checkpoint", "interval", "confidence", "abstained", "reason", "trivial_rules"}
    for advice, ratio in zip(found["advice"], (0.5, 0.9)):
        assert set(advice) == keys and advice["ratio"] == ratio
        assert advice["abstained"] is True and isinstance(advice["reason"], str)  # and the exit status is 0
        assert 0 <= advice["confidence"] <= 1 and set(advice["interval"]) <= {100, 900, 1000}
        assert advice["trivial_rules"]["final checkpoint"] == last["path"]
    page = (tmp_path / "a.html").read_text()
    assert "checkpoint-900" in page and "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert contents(run) == before
