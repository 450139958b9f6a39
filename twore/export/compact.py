"""The compact form: one bit an entry and the kept values, in one safetensors file; restores every bit.

Layout of the file. For every tensor that is smaller so, `kept:NAME` (its entries that are not zero, in row-major order,
in its own dtype) and `mask:NAME` (uint8: its entries as bits, 1 = kept, first entry = highest bit, zero-padded); every
other tensor as `dense:NAME`. One metadata string, `twore_compact`: JSON with the version, the metadata of the original
file, and for each tensor [name, form, dtype, shape, crc32 of its dense bytes]. Zero means all bits zero, so -0.0 is a
kept value. At density d a float32 tensor takes d + 1/32 of its dense size, a 16-bit one d + 1/16.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twore.checkpoints import Checkpoint, CheckpointError, TensorInfo, check_out, open_checkpoint, write_safetensors
from twore.checkpoints.layers import COMPACT_KEY
from twore.checkpoints.tensor_files import DTYPES, SafetensorsFile, code_of, open_safetensors, raw_bytes

KEY, VERSION = COMPACT_KEY, 1
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes an entry -> dtype


def export_compact(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write a checkpoint in the compact form to the file `out`. Every tensor is read twice, one at a time.

    path: a Hugging Face folder, a .safetensors file or a state dict; a folder's config and tokenizer are not part of
    the file: keep them beside it. Returns the file.
    """
    source, target = Path(path), Path(out)
    checkpoint = open_checkpoint(source)
    check_out(source, target, folder=False)
    parts: dict[str, tuple[str, TensorInfo]] = {}  # name in the file -> (tensor, what is written)
    entries = []
    for info in checkpoint.tensors.values():
        tensor = checkpoint.read(info.name)
        kept = int(bits_of(tensor).count_nonzero())
        mask_bytes = (info.size + 7) // 8
        form = "kept" if kept * info.dtype.itemsize + mask_bytes < info.nbytes else "dense"
        entries.append([info.name, form, code_of(info), list(info.shape), zlib.crc32(_buffer(tensor))])
        if form == "dense":
            parts[f"dense:{info.name}"] = (info.name, TensorInfo(f"dense:{info.name}", info.dtype, info.shape))
        else:
            parts[f"kept:{info.name}"] = (info.name, TensorInfo(f"kept:{info.name}", info.dtype, (kept,)))
            parts[f"mask:{info.name}"] = (info.name, TensorInfo(f"mask:{info.name}", torch.uint8, (mask_bytes,)))

    def read(part: str) -> Tensor:
        tensor = checkpoint.read(parts[part][0])
        if part.startswith("dense:"):
            return tensor
        bits = bits_of(tensor)
        if part.startswith("mask:"):
            return torch.from_numpy(np.packbits((bits != 0).numpy()))
        return bits[bits != 0].view(tensor.dtype)

    header = {"version": VERSION, "metadata": _metadata_of(checkpoint), "tensors": entries}
    write_safetensors(target, [info for _, info in parts.values()], read, {KEY: json.dumps(header)})
    return target


def restore_compact(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write the dense tensors of a compact file to `out`, a plain safetensors file: same names, dtypes, shapes, bits.

    CheckpointError when `path` is no compact file or is damaged. Returns the file.
    """
    compact, target = read_compact(path), Path(out)
    check_out(compact.path, target, folder=False)
    write_safetensors(target, compact.infos.values(), compact.read, compact.metadata)
    return target


@dataclass(frozen=True)
class CompactFile:
    """A compact file, read like a dense one: `infos` by name, `read(name)` gives the dense tensor."""

    path: Path
    infos: dict[str, TensorInfo]
    metadata: dict[str, str]
    read: Callable[[str], Tensor]


def read_compact(path: str | os.PathLike[str]) -> CompactFile:
    """Open a compact file; a tensor is restored, and checked against its checksum, when it is read."""
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"no compact file at {place}")
    file = open_safetensors(place)
    if KEY not in file.metadata:
        raise CheckpointError(f"{place} is not in the compact form: pass a file that `twore export` wrote")
    try:
        header = json.loads(file.metadata[KEY])
        version, metadata = header["version"], dict(header["metadata"])
        infos = {name: TensorInfo(name, DTYPES[dtype], tuple(shape)) for name, _, dtype, shape, _ in header["tensors"]}
        entries = {name: (form, checksum) for name, form, _, _, checksum in header["tensors"]}
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{place} is damaged in its header: copy it or export it again") from error
    if version != VERSION:
        raise CheckpointError(f"{place} is a compact file of version {version}, this twore reads {VERSION}")

    def read(name: str) -> Tensor:
        form, checksum = entries[name]
        tensor = _restored(file, infos[name], form)
        if zlib.crc32(_buffer(tensor)) != checksum:
            raise CheckpointError(f"{place} is damaged at {name}: copy it or export it again")
        return tensor

    return CompactFile(place, infos, metadata, read)


def bits_of(tensor: Tensor) -> Tensor:
    """The entries as integers of their own width, flat: zero exactly where all bits are. (...) -> (n,)"""
    return tensor.detach().cpu().contiguous().reshape(-1).view(INTEGERS[tensor.element_size()])


def _restored(file: SafetensorsFile, info: TensorInfo, form: str) -> Tensor:
    parts = [f"{form}:{info.name}"] + ([f"mask:{info.name}"] if form == "kept" else [])
    if any(part not in file.infos for part in parts):
        raise CheckpointError(f"{file.path} is damaged: it lacks a part of {info.name}; copy it or export it again")
    values = file.read(parts[0])
    if form == "dense":
        return values
    mask = torch.from_numpy(np.unpackbits(file.read(parts[1]).numpy(), count=info.size).astype(bool))
    if int(mask.count_nonzero()) != values.numel():
        raise CheckpointError(f"{file.path} is damaged at {info.name}: copy it or export it again")
    bits = torch.zeros(info.size, dtype=INTEGERS[info.dtype.itemsize])
    bits[mask] = bits_of(values)
    return bits.view(info.dtype).reshape(info.shape)


def _buffer(tensor: Tensor) -> memoryview:
    return raw_bytes(tensor).numpy().data if tensor.numel() else memoryview(b"")


def _metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata of a single safetensors file; otherwise what transformers expects."""
    first = checkpoint.files[0]
    alone = isinstance(first, SafetensorsFile) and len(checkpoint.files) == 1
    return dict(first.metadata) if alone and isinstance(first, SafetensorsFile) else {"format": "pt"}
