"""ONNX: one sentence when it cannot be; the same logits where it can."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny_models import NAMES, build

from twore.export import export_model, export_onnx
from twore.export.onnx import example_inputs


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"ONNX needs onnx and onnxscript.*twore\[onnx\]"):
        export_onnx(tmp_path, tmp_path / "m.onnx")


def test_a_failed_form_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build("vit").save_pretrained(tmp_path / "in")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="ONNX needs"):
        export_model(tmp_path / "in", tmp_path / "out", forms=["onnx", "compact"])
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_file_has_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"no config\.json"):
        export_onnx(tmp_path / "m.pt", tmp_path / "m.onnx")


def test_what_torch_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    build("vit").save_pretrained(tmp_path / "in")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("step 1 of 3") from RuntimeError("\x1b[96mno such operator\x1b[0m\nand a long story")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ValueError, match="ViTForImageClassification cannot be exported .*: no such operator$"):
        export_onnx(tmp_path / "in", tmp_path / "m.onnx")


@pytest.mark.parametrize("name", NAMES)
def test_example_inputs_fit_the_model(name: str) -> None:
    model = build(name)
    with torch.no_grad():
        assert model(**example_inputs(model)).logits.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2", "marian", "vit"])  # torch 2.15 cannot trace T5
def test_an_onnx_file_computes_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = build(name)
    model.save_pretrained(tmp_path / "in")
    path = export_onnx(tmp_path / "in", tmp_path / "m.onnx")
    inputs = example_inputs(model)
    session = runtime.InferenceSession(str(path))
    given = {entry.name: inputs[entry.name].numpy() for entry in session.get_inputs()}
    with torch.no_grad():
        expected = model(**inputs).logits
    torch.testing.assert_close(torch.from_numpy(session.run(None, given)[0]), expected, rtol=1e-4, atol=1e-4)
