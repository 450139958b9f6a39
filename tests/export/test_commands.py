"""`twore prune` and `twore export` as a user types them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build, contents
from transformers import GPT2LMHeadModel

from twore.commands import export, prune


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    prune.add(commands)
    export.add(commands)
    options = parser.parse_args([str(word) for word in words])
    return options.do(options)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "models"


def test_prune_then_export_then_restore(here: Path, capsys: pytest.CaptureFixture) -> None:
    build("gpt2").save_pretrained(here / "gpt2")
    before = contents(here)
    assert run("prune", here / "gpt2", "--ratio", 0.9, "--exclude", "lm_head") == 0
    said = capsys.readouterr().out
    assert "transformer.h.0.attn.c_attn.weight" in said and "4 layers: 307 of 3,072 weights kept" in said
    pruned = Path("gpt2-pruned-0.9")
    assert len(pd.read_csv(pruned / "pruning.csv")) == 4
    assert run("export", pruned, "--batch", 2, "--no-compressed") == 0
    said = capsys.readouterr().out
    assert "times" in said and "for 2 rows" in said and "Dense kernels gain nothing" in said
    assert len(pd.read_csv("gpt2-pruned-0.9-export/speed.csv")) > 1
    assert run("export", "gpt2-pruned-0.9-export", "--restore") == 0
    loaded, expected = (GPT2LMHeadModel.from_pretrained(p) for p in ("gpt2-pruned-0.9-export-restored", pruned))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in expected.state_dict().items())
    assert contents(here) == before


def test_a_file_of_weights(here: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"fc.weight": torch.randn(40, 40), "fc.bias": torch.randn(40)}, here / "net.pt")
    assert run("prune", here / "net.pt", "--ratio", 0.5) == 0
    assert int((torch.load("net-pruned-0.5.pt", weights_only=True)["fc.weight"] == 0).sum()) == 800
    assert run("export", "net-pruned-0.5.pt", "--no-speed", "--out", "out") == 0
    assert "1." in capsys.readouterr().out
    assert run("export", "out/compact.safetensors", "--restore") == 0
    assert torch.equal(
        load_file("compact-restored.safetensors")["fc.weight"], load_file("out/model.safetensors")["fc.weight"]
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prune", "DIR/nowhere", "--ratio", "0.5"], "no checkpoint at"),
        (["prune", "DIR/gpt2", "--ratio", "0.5"], "lm_head.weight is tied"),
        (["prune", "DIR/gpt2", "--ratio", "1.5"], "fraction removed"),
        (["prune", "DIR/gpt2", "--ratio", "0.5", "--tied", "unti"], "did you mean 'untie'"),
        (["prune", "DIR/gpt2", "--ratio", "0.5", "--tied", "skip", "--out", "DIR/gpt2/p"], "never writes there"),
        (["prune", "DIR/net.safetensors", "--ratio", "0.5", "--out", "p"], "a file with that suffix"),
        (["prune", "DIR/net.safetensors", "--ratio", "0.5", "--include", "f"], "did you mean 'fc'"),
        (["export", "DIR/nowhere"], "no checkpoint at"),
        (["export", "DIR/gpt2", "--forms", "pickle"], "unknown form"),
        (["export", "DIR/gpt2", "--batch", "0"], "--batch"),
        (["export", "DIR/gpt2", "--restore"], "has no compact.safetensors"),
        (["export", "DIR/net.safetensors", "--restore"], "not in the compact form"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    here: Path, capsys: pytest.CaptureFixture, words: list[str], sentence: str
) -> None:
    build("gpt2").save_pretrained(here / "gpt2")
    save_file({"fc.weight": torch.randn(4, 4)}, here / "net.safetensors")
    before = contents(here.parent)
    assert run(*[word.replace("DIR", str(here)) for word in words]) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and len(said.splitlines()) == 1
    assert contents(here.parent) == before
