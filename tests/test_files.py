from __future__ import annotations

import math

import pytest
import torch

from twore.files import CorruptFileError, read_record, read_tensors, write_bytes, write_record, write_tensors


def test_a_record_comes_back_with_its_numbers_exact(tmp_path):
    record = {"score": 0.1 + 0.2, "none": None, "list": [1, 2], "nan": math.nan}
    write_record(tmp_path / "a" / "r.json", record)
    back = read_record(tmp_path / "a" / "r.json")
    assert back["score"] == 0.1 + 0.2
    assert math.isnan(back.pop("nan"))
    assert back == {k: v for k, v in record.items() if k != "nan"}


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_truncated_record_is_found(tmp_path, cut):
    path = tmp_path / "r.json"
    write_record(path, {"score": 1.0})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptFileError):
        read_record(path)


def test_an_altered_record_is_found(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, {"score": 91.5})
    path.write_text(path.read_text().replace("91.5", "92.5"))
    with pytest.raises(CorruptFileError, match="checksum"):
        read_record(path)


def test_tensors_come_back_bit_for_bit(tmp_path):
    tensors = {
        "w": torch.randn(3, 4),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"epoch": 3})
    back, about = read_tensors(tmp_path / "t.safetensors")
    assert about == {"epoch": 3}
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("damage", ["truncate", "flip", "foreign"])
def test_broken_tensor_files_are_found(tmp_path, damage):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"w": torch.ones(100)})
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[:-10]
    elif damage == "flip":
        data[-5] ^= 1
    else:
        data = bytearray(b"not a tensor file")
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        read_tensors(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_bytes(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
