"""Safetensors files, one tensor in memory at a time: read the header, read a tensor, write a file as a stream.

The format (safetensors' own README): 8 bytes, the header's length, little-endian; the header, JSON, name -> dtype,
shape and byte range; the bytes of all tensors, without holes. It is read here rather than through the library because
a checkpoint may be larger than memory: a tensor is read from its byte range, and a writer needs only names, dtypes and
shapes beforehand.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twore.checkpoints.errors import CheckpointError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
LONGEST_HEADER = 100_000_000  # bytes; the library's own limit


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a stored tensor before it is read."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class SafetensorsFile:
    """A file that was opened by `open_safetensors`."""

    path: Path
    infos: dict[str, TensorInfo]  # in the order of their bytes
    metadata: dict[str, str]
    starts: dict[str, int]  # name -> first byte in the file

    def read(self, name: str) -> Tensor:
        """The tensor `name`, in memory of its own. CheckpointError when the file has become shorter meanwhile."""
        info = self.infos[name]
        buffer = bytearray(info.nbytes)
        if not buffer:
            return torch.empty(info.shape, dtype=info.dtype)
        with self.path.open("rb") as stream:
            stream.seek(self.starts[name])
            if stream.readinto(buffer) != info.nbytes:
                raise CheckpointError(f"{self.path} is truncated at {name}: copy or download it again")
        return torch.frombuffer(buffer, dtype=torch.uint8).view(info.dtype).reshape(info.shape)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read the header of a file and check it against the file's length. CheckpointError when something is wrong."""
    length = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(8)
        header_bytes = int.from_bytes(first, "little")
        if len(first) < 8 or header_bytes > LONGEST_HEADER:
            raise CheckpointError(
                f"{path} is not a safetensors file, or only a piece of one: copy or download it again"
            )
        text = stream.read(header_bytes)
    if len(text) < header_bytes:
        raise CheckpointError(f"{path} is truncated within its header: copy or download it again")
    try:
        header = json.loads(text)
        metadata = {str(key): str(value) for key, value in (header.pop("__metadata__", None) or {}).items()}
        entries = sorted(((name, *_entry(path, name, entry)) for name, entry in header.items()), key=lambda e: e[2])
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} has no readable safetensors header: copy or download it again") from error
    start = 8 + header_bytes
    end = start + max((begin + info.nbytes for _, info, begin in entries), default=0)
    if end > length:
        raise CheckpointError(f"{path} is truncated: {length:,} bytes of {end:,}; copy or download it again")
    infos = {name: info for name, info, _ in entries}
    return SafetensorsFile(path, infos, metadata, {name: start + begin for name, _, begin in entries})


def write_safetensors(
    path: Path,
    infos: Iterable[TensorInfo],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to `path`, whole or not at all, with one of them in memory at a time.

    infos: what will be written; the widest dtypes come first, so that every tensor starts at a multiple of its width.
    read: name -> the tensor, asked once each; ValueError when it is not of the dtype and shape announced.
    """
    ordered = sorted(infos, key=lambda info: -info.dtype.itemsize)  # stable
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for info in ordered:
        offsets = [position, position + info.nbytes]
        header[info.name] = {"dtype": code_of(info), "shape": list(info.shape), "data_offsets": offsets}
        position += info.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for info in ordered:
                stream.write(_bytes_of(info, read(info.name)))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def code_of(info: TensorInfo) -> str:
    """The format's name of a dtype, e.g. "BF16". ValueError for one that it lacks."""
    if info.dtype not in CODES:
        raise ValueError(f"{info.name} is {info.dtype}, which safetensors files cannot hold: convert it first")
    return CODES[info.dtype]


def raw_bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, row-major, whatever its memory format. (...) -> uint8 (n * bytes an entry,)"""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _bytes_of(info: TensorInfo, tensor: Tensor) -> memoryview:
    if tensor.dtype != info.dtype or tuple(tensor.shape) != info.shape:
        got = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise ValueError(f"{info.name} was announced as {info.dtype} {info.shape} and came as {got}")
    return raw_bytes(tensor).numpy().data if tensor.numel() else memoryview(b"")


def _entry(path: Path, name: str, entry: Mapping[str, Any]) -> tuple[TensorInfo, int]:
    """(what is stored, its first byte after the header) of one entry of the header."""
    code = entry["dtype"]
    if code not in DTYPES:
        raise CheckpointError(f"{path}: {name} has dtype {code}, which twore does not read: convert the checkpoint")
    info = TensorInfo(name, DTYPES[code], tuple(int(n) for n in entry["shape"]))
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if begin < 0 or any(n < 0 for n in info.shape) or end - begin != info.nbytes:
        raise CheckpointError(f"{path}: {name} does not have the bytes of its shape: copy or download the file again")
    return info, begin
