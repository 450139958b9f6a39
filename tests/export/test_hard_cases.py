"""What users meet: a model pruned before, files of ours taken for models, places that cannot be written to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build, contents

from twore.checkpoints import CheckpointError, LayerChoice, open_checkpoint
from twore.checkpoints.tensor_files import open_safetensors
from twore.cli import main
from twore.commands.export import sizes_in_words
from twore.export import export_compact, export_model, measure_sizes, prune_checkpoint, restore_compact
from twore.pruning import load_masks, save_masks

STATE = {"fc.weight": torch.arange(1.0, 101).reshape(10, 10), "fc.bias": torch.ones(10)}
SKIP = LayerChoice(tied="skip")


def test_a_folder_that_was_pruned_before(tmp_path: Path) -> None:
    """Pruned further: masks and reports are those of this pruning, and what was removed stays removed."""
    build("gpt2").save_pretrained(tmp_path / "in")
    first = prune_checkpoint(tmp_path / "in", 0.5, tmp_path / "half", choose=SKIP)
    second = prune_checkpoint(tmp_path / "half", 0.9, tmp_path / "most", choose=SKIP)
    assert json.loads((tmp_path / "most" / "pruning.json").read_text())["ratio"] == 0.9
    assert second.left_behind == ()
    before, after = load_masks(first.masks), load_masks(second.masks)
    for name, mask in after.items():
        assert int((~mask).sum()) == round(0.9 * mask.numel()) and not (mask & ~before[name]).any()


def test_other_state_dicts_in_the_file_are_named(tmp_path: Path) -> None:
    torch.save({"model": STATE, "ema": dict(STATE), "optimizer": {"state": {}}, "rng": {"cpu": torch.ones(3)}},
               tmp_path / "m.pt")  # fmt: skip
    pruned = prune_checkpoint(tmp_path / "m.pt", 0.5, tmp_path / "out.pt")
    assert [note for note in pruned.notes if "ema" in note] == [
        "only 'model' is pruned, not ema in the same file, which has these weights too"
    ]
    assert torch.equal(torch.load(tmp_path / "out.pt")["ema"]["fc.weight"], STATE["fc.weight"])
    torch.save(STATE, tmp_path / "plain.pt")
    assert not any("same file" in n for n in prune_checkpoint(tmp_path / "plain.pt", 0.5, tmp_path / "p.pt").notes)


def test_a_class_whose_package_is_missing_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm's folders: transformers knows them, and wants timm."""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "config.json").write_text(json.dumps({"architecture": "resnet10t", "num_classes": 5}))
    conv = {"conv1.weight": torch.randn(8, 3, 3, 3), "bn1.weight": torch.ones(8), "fc.weight": torch.randn(5, 8)}
    save_file(conv, tmp_path / "timm" / "model.safetensors")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("\nTimmWrapperConfig requires the timm library")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", missing)
    with pytest.raises(CheckpointError, match="--layers names") as error:
        prune_checkpoint(tmp_path / "timm", 0.5, tmp_path / "out")
    assert len(str(error.value).splitlines()) == 1
    pruned = prune_checkpoint(tmp_path / "timm", 0.5, tmp_path / "out", choose=LayerChoice(by="names"))
    assert list(pruned.layers["name"]) == ["conv1.weight", "fc.weight"] and (tmp_path / "out/config.json").is_file()


def test_our_own_files_are_no_models(tmp_path: Path) -> None:
    save_masks(tmp_path / "masks.safetensors", {"fc.weight": STATE["fc.weight"] > 3})
    save_file(STATE, tmp_path / "m.safetensors")
    export_compact(tmp_path / "m.safetensors", tmp_path / "c.safetensors")
    for name, words in (("masks", "holds masks, not weights"), ("c", "twore export --restore")):
        with pytest.raises(CheckpointError, match=words):
            prune_checkpoint(tmp_path / f"{name}.safetensors", 0.5, tmp_path / "out.safetensors")


def test_places_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is read, whoever the user is."""
    save_file(STATE, tmp_path / "m.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be made, since .*file is a file: name another --out"):
        prune_checkpoint(tmp_path / "m.safetensors", 0.5, tmp_path / "file" / "out.safetensors")
    monkeypatch.setattr("twore.checkpoints.places.os.access", lambda path, mode: False)
    before = contents(tmp_path)
    for write in (lambda out: prune_checkpoint(tmp_path / "m.safetensors", 0.5, out),
                  lambda out: export_model(tmp_path / "m.safetensors", out),
                  lambda out: export_compact(tmp_path / "m.safetensors", out)):  # fmt: skip
        with pytest.raises(ValueError, match="may not be written to: name another --out"):
            write(tmp_path / "new" / "out.safetensors")
    assert contents(tmp_path) == before


def test_the_last_checkpoint_of_a_run_is_the_example(tmp_path: Path) -> None:
    for step in (1000, 900):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(CheckpointError, match="such as checkpoint-1000$"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["90%", "0,9", "half"])
def test_a_ratio_that_is_no_number_says_what_to_write(text: str, capsys: pytest.CaptureFixture) -> None:
    for words in (["prune", "m", "--ratio", text], ["advise", "m", "--ratios", "0.5", text]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert f"such as 0.9: got {text!r}" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["{", '{"version": 1}', '{"version": 1, "metadata": {}, "tensors": 3}', "[]"])
def test_headers_that_are_not_ours(header: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "c.safetensors", metadata={"twore_compact": header})
    with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged in its header"):
        restore_compact(tmp_path / "c.safetensors", tmp_path / "r.safetensors")
    save_file(STATE, tmp_path / "masks.safetensors", metadata={"twore_masks": header})
    with pytest.raises(ValueError, match=r"masks\.safetensors is damaged in its header"):
        load_masks(tmp_path / "masks.safetensors")


def test_the_sentence_about_sizes(tmp_path: Path) -> None:
    weight = torch.zeros(100, 100)
    for zeros, words in ((True, "times smaller than the plain one on disk; once"), (False, "too few zeros; once")):
        save_file({"w": weight if zeros else weight + 1}, tmp_path / "m.safetensors")
        (tmp_path / "c.safetensors").unlink(missing_ok=True)
        export_compact(tmp_path / "m.safetensors", tmp_path / "c.safetensors")
        sizes = measure_sizes({"safetensors": tmp_path / "m.safetensors", "compact": tmp_path / "c.safetensors"})
        assert words in sizes_in_words(sizes)


@pytest.mark.slow
def test_the_compact_form_restores_every_bit_in_another_process(tmp_path: Path) -> None:
    """The command in a process of its own, from the compact file alone; bytes are compared, not numbers."""
    model = build("bert", torch.bfloat16)
    model.save_pretrained(tmp_path / "in", max_shard_size="4KB")
    prune_checkpoint(tmp_path / "in", 0.9, tmp_path / "pruned", choose=SKIP)
    export_compact(tmp_path / "pruned", tmp_path / "c.safetensors")
    digests = {
        name: hashlib.sha256(open_checkpoint(tmp_path / "pruned").read(name).view(torch.uint8).numpy()).hexdigest()
        for name in open_checkpoint(tmp_path / "pruned").tensors
    }
    (tmp_path / "alone").mkdir()
    (tmp_path / "c.safetensors").rename(tmp_path / "alone" / "c.safetensors")
    command = [sys.executable, "-m", "twore.cli", "export", "c.safetensors", "--restore", "--out", "r.safetensors"]
    root = str(Path(__file__).parents[2])
    subprocess.run(command, cwd=tmp_path / "alone", env=os.environ | {"PYTHONPATH": root}, check=True)
    restored = load_file(tmp_path / "alone" / "r.safetensors")
    assert {n: hashlib.sha256(t.view(torch.uint8).numpy()).hexdigest() for n, t in restored.items()} == digests
    assert open_safetensors(tmp_path / "alone" / "r.safetensors").metadata == {"format": "pt"}
