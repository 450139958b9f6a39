"""Mask files: what goes in comes out; one bit an entry; damage is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from twore.pruning import load_masks, save_masks

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(SHAPES, max_size=5), seed=st.integers(0, 1000))
def test_round_trip(tmp_path: Path, shapes: list[tuple[int, ...]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = {f"layer{9 - i}.weight": torch.rand(shape, generator=generator) < 0.3 for i, shape in enumerate(shapes)}
    save_masks(tmp_path / "m.safetensors", masks)
    loaded = load_masks(tmp_path / "m.safetensors")
    assert list(loaded) == list(masks)  # the order too
    for name, mask in masks.items():
        assert loaded[name].dtype == torch.bool and torch.equal(loaded[name], mask)


def test_files_are_packed_equal_and_alone(tmp_path: Path) -> None:
    masks = {"b": torch.rand(100, 80) < 0.5, "a": (torch.rand(6, 10) < 0.5).T}
    for name in ("one", "new/two"):
        save_masks(tmp_path / name, masks)  # makes the folder
    assert (tmp_path / "one").read_bytes() == (tmp_path / "new/two").read_bytes()
    assert (tmp_path / "one").stat().st_size < 8060 // 8 + 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "one"]  # no temporary file left


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    save_masks(path, {"w": torch.ones(3).bool()})
    old = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("twore.pruning.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_masks(path, {"w": torch.zeros(3).bool()})
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_what_is_no_mask_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="m.safetensors"):
        load_masks(path)
    save_masks(path, {"w": torch.ones(100).bool()})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 0b1000
    for damaged in (whole[:-3], whole[:5], b"", b"hello, world" * 9, bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="m.safetensors"):
            load_masks(path)
    save_file({"w": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="holds no masks"):
        load_masks(path)


def test_only_bool_masks_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="w is torch.float32"):
        save_masks(tmp_path / "m", {"w": torch.ones(3)})
