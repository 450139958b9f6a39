"""Files that appear whole or not at all, and that prove what they hold.

A write goes to a temporary file in the same folder, is flushed to the disk, and is renamed over the target: a reader
(or a killed writer) never sees half a file. Tensors are stored as safetensors with a digest of their contents in the
header; records as JSON with a digest beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


class CorruptFileError(ValueError):
    """A stored file does not hold what it says it holds."""


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A stream whose contents are at `path`, whole, when the with block ends well; nothing changes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all."""
    with written(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, text.encode())


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON record with its digest."""
    body = json.dumps(record, sort_keys=True, allow_nan=True)
    write_text(path, json.dumps({"sha256": _digest(body), "record": body}))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record written by write_record. CorruptFileError when truncated or altered."""
    try:
        outer = json.loads(path.read_text())
        body = outer["record"]
        intact = outer["sha256"] == _digest(body)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path} is truncated or not a record") from error
    if not intact:
        raise CorruptFileError(f"{path} does not match its checksum")
    return json.loads(body)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write named tensors and a small JSON value about them."""
    dense = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    header = {"about": json.dumps(dict(about or {}), sort_keys=True), "sha256": _tensor_digest(dense)}
    write_bytes(path, save(dense, metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what write_tensors wrote: (tensors on the CPU, about). CorruptFileError when truncated or altered."""
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  not a mapping
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} is truncated or not a safetensors file") from error
    if header.get("sha256") != _tensor_digest(tensors):
        raise CorruptFileError(f"{path} does not match its checksum")
    return tensors, json.loads(header["about"])


def read_about(path: Path) -> dict[str, Any]:
    """What was said about the tensors of a file that write_tensors wrote; the tensors are not read."""
    with safe_open(path, framework="pt") as stream:
        return json.loads((stream.metadata() or {})["about"])


def cache_folder(option: Path | None = None) -> Path:
    """`option`, else $TWORE_CACHE, else twore/ in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    if option is not None:
        return option
    if given := os.environ.get("TWORE_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "twore"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
