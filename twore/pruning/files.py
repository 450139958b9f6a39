"""Mask files: one bit an entry, in a safetensors file beside the weights.

Layout: a uint8 tensor a mask, its flat entries packed by numpy.packbits (first entry = highest bit, zero-padded), and
one metadata string, `twore_masks`: JSON with a version and, in the masks' order, [name, shape, crc32 of the bytes].
One string, because safetensors writes several in no fixed order: equal masks give equal bytes.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from twore.pruning.masks import Masks

KEY, VERSION = "twore_masks", 1


def save_masks(path: str | os.PathLike[str], masks: Masks) -> None:
    """Write masks to `path`, e.g. "pruned/masks.safetensors"; the file appears whole or not at all.

    masks: name -> bool tensor, on any device. Missing parent folders are made.
    """
    wrong = [name for name, mask in masks.items() if mask.dtype != torch.bool]
    if wrong:
        raise ValueError(f"masks are bool tensors: {wrong[0]} is {masks[wrong[0]].dtype}")
    packed = {name: np.packbits(mask.detach().cpu().numpy().reshape(-1)) for name, mask in masks.items()}
    entries = [[name, list(mask.shape), zlib.crc32(packed[name].tobytes())] for name, mask in masks.items()]
    data = save(packed, metadata={KEY: json.dumps({"version": VERSION, "masks": entries})})

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # same folder: renaming is atomic
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_masks(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The masks of a file of `save_masks`, in their order, on the CPU: name -> bool tensor.

    Raises FileNotFoundError for a missing file, ValueError for one that is damaged or holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no mask file at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable mask file ({error}): write it again with save_masks") from error
    if KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file but holds no masks: pass a file that save_masks wrote")
    try:
        header = json.loads(metadata[KEY])
        version, entries = header["version"], [(str(name), shape, int(crc)) for name, shape, crc in header["masks"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged in its header: write it again with save_masks") from error
    if version != VERSION:
        raise ValueError(f"{path} is a mask file of version {version}; this twore reads {VERSION}: update it")
    masks = {}
    for name, shape, checksum in entries:
        if name not in packed or zlib.crc32(packed[name].tobytes()) != checksum:
            raise ValueError(f"{path} is damaged at {name}: write it again with save_masks")
        bits = np.unpackbits(packed[name], count=int(np.prod(shape, dtype=np.int64)))
        masks[name] = torch.from_numpy(bits.astype(bool)).reshape(shape)
    return masks
