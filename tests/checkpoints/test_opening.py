"""Checkpoints are opened by their headers, one tensor at a time; what is wrong with one is said in one sentence."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from twore.checkpoints import CheckpointError, TensorInfo, open_checkpoint, write_safetensors

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3), "b": torch.tensor(3), "empty": torch.ones(0, 4),
    "flag": torch.tensor([True, False, True]), "c": torch.randn(3, 2, dtype=torch.bfloat16),
}  # fmt: skip


def sharded(folder: Path) -> None:
    folder.mkdir()
    names = list(TENSORS)
    files = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, inside in files.items():
        save_file({name: TENSORS[name] for name in inside}, folder / file)
    weight_map = {name: file for file, inside in files.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def every_layout(tmp_path: Path) -> list[Path]:
    save_file(TENSORS, tmp_path / "m.safetensors")
    torch.save(TENSORS, tmp_path / "m.pt")
    torch.save({"state_dict": TENSORS, "epoch": 3}, tmp_path / "m.ckpt")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "single").mkdir()
    save_file(TENSORS, tmp_path / "single/model.safetensors")
    sharded(tmp_path / "sharded")
    (tmp_path / "bin").mkdir()
    torch.save(TENSORS, tmp_path / "bin/pytorch_model.bin")
    return sorted(tmp_path.iterdir())


def test_every_layout_gives_the_same_tensors(tmp_path: Path) -> None:
    for path in every_layout(tmp_path):
        checkpoint = open_checkpoint(path)
        assert set(checkpoint.tensors) == set(TENSORS), path
        for name, value in TENSORS.items():
            info = checkpoint.tensors[name]
            assert (info.dtype, info.shape, info.size) == (value.dtype, tuple(value.shape), value.numel())
            assert torch.equal(checkpoint.read(name), value) and checkpoint.read(name).dtype == value.dtype
        lazy = checkpoint.lazily(["c", "a.weight"])
        assert list(lazy) == ["c", "a.weight"] and torch.equal(lazy["c"], TENSORS["c"])


def test_safetensors_win_over_bin_as_in_from_pretrained(tmp_path: Path) -> None:
    sharded(tmp_path / "m")
    (tmp_path / "m/pytorch_model.bin").write_bytes(b"never read")
    assert set(open_checkpoint(tmp_path / "m").tensors) == set(TENSORS)


def test_a_tensor_that_was_read_may_be_changed_without_reaching_the_file(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()
    open_checkpoint(tmp_path / "m.pt").read("a.weight").zero_()
    assert (tmp_path / "m.pt").read_bytes() == before
    assert torch.equal(open_checkpoint(tmp_path / "m.pt").read("a.weight"), TENSORS["a.weight"])


def test_writing_a_stream_that_the_library_reads(tmp_path: Path) -> None:
    infos = [TensorInfo(name, value.dtype, tuple(value.shape)) for name, value in TENSORS.items()]
    write_safetensors(tmp_path / "m.safetensors", infos, lambda name: TENSORS[name], {"format": "pt"})
    loaded = load_file(tmp_path / "m.safetensors")
    assert set(loaded) == set(TENSORS) and all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    with pytest.raises(ValueError, match="was announced as"):
        write_safetensors(tmp_path / "m.safetensors", infos, lambda name: TENSORS["b"])
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert set(load_file(tmp_path / "m.safetensors")) == set(TENSORS)  # the old file, whole


class Runs:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "old", "plain", "protocol 0", "folder"])
def test_a_pickle_that_would_run_code_is_refused_by_name(form: str, tmp_path: Path) -> None:
    content, path = {"w": torch.ones(2), "x": Runs(tmp_path / "ran")}, tmp_path / "m.pt"
    if form == "folder":
        (tmp_path / "m").mkdir()
        path = tmp_path / "m"
        torch.save(content, path / "pytorch_model.bin")
    elif form in ("zip", "old"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol=0 if form == "protocol 0" else None))
    with pytest.raises(
        CheckpointError, match=r"is refused, since loading it would run code.*(posix|nt)\.mkdir"
    ) as error:
        open_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*save its state dict"):
        open_checkpoint(tmp_path / "m.pt")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="TorchScript program"):
        open_checkpoint(tmp_path / "m.pt")


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    changed = {
        "half": data[: len(data) // 2], "a byte short": data[:-1], "header only": data[:20], "empty": b"",
        "other": b"hello, world" * 9, "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    }  # fmt: skip
    path.write_bytes(changed[how])


@pytest.mark.parametrize("how", ["half", "a byte short", "header only", "empty", "other", "lfs"])
@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "old.pth", "shard"])
def test_damaged_files_are_named_in_one_sentence(name: str, how: str, tmp_path: Path) -> None:
    every_layout(tmp_path)
    path = tmp_path / name
    if name == "shard":
        path = tmp_path / "sharded/model-00001-of-00002.safetensors"
    damage(path, how)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path / "sharded" if name == "shard" else path)
    said = str(error.value)
    assert path.name in said and len(said.splitlines()) == 1
    assert ("git lfs pull" if how == "lfs" else "again") in said


def test_what_a_folder_lacks(tmp_path: Path) -> None:
    sharded(tmp_path / "m")
    index = tmp_path / "m/model.safetensors.index.json"
    good = index.read_text()
    index.write_text(good.replace('"b"', '"bb"'))
    with pytest.raises(CheckpointError, match=r"lacks bb, which model\.safetensors\.index\.json lists"):
        open_checkpoint(tmp_path / "m")
    index.write_text(good.replace("model-00002", "../model-00002"))
    with pytest.raises(CheckpointError, match="outside its folder"):
        open_checkpoint(tmp_path / "m")
    index.write_text(good[:40])
    with pytest.raises(CheckpointError, match=r"index\.json is truncated"):
        open_checkpoint(tmp_path / "m")
    index.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors\.index\.json: copy the index too"):
        open_checkpoint(tmp_path / "m")
    index.write_text(good)
    (tmp_path / "m/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00002\.safetensors"):
        open_checkpoint(tmp_path / "m")


def test_folders_without_a_model_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoint-500").mkdir()
    with pytest.raises(CheckpointError, match="checkpoint-500"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="an adapter"):
        open_checkpoint(tmp_path)
    (tmp_path / "m.txt").write_text("")
    with pytest.raises(CheckpointError, match="no checkpoint that twore knows"):
        open_checkpoint(tmp_path / "m.txt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"w": torch.empty(2, device="meta")}, "no data"),
        ({"w": torch.eye(2).to_sparse()}, "plain dense tensors"),
        ({"epoch": 3}, "no state dict"),
        ([torch.ones(2)], "no state dict"),
        (
            {"teacher": {"w": torch.ones(2)}, "student": {"w": torch.ones(2)}},
            r"several state dicts \(teacher, student\)",
        ),
    ],
)
def test_state_dicts_that_cannot_be_used(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(tmp_path / "m.pt")


def test_the_one_state_dict_is_found_whatever_its_name(tmp_path: Path) -> None:
    torch.save({"student": {"w": torch.ones(2)}, "epoch": 1, "log": {"loss": 0.5}}, tmp_path / "m.pt")
    assert list(open_checkpoint(tmp_path / "m.pt").tensors) == ["w"]
