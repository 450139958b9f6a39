"""A checkpoint written again in its own layout, with layers zeroed: same files, names, dtypes, shards and index."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from twore.checkpoints.folders import model_files
from twore.checkpoints.layers import Layer
from twore.checkpoints.opening import Checkpoint
from twore.checkpoints.pickles import PickleFile, open_pickle, place_of
from twore.checkpoints.tensor_files import SafetensorsFile, TensorInfo, write_safetensors

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes an entry -> dtype


def write_like(
    checkpoint: Checkpoint,
    out: Path,
    layers: Sequence[Layer],
    masks: Mapping[str, Tensor],
    *,
    config: Mapping | None = None,
) -> None:
    """Write `checkpoint` to `out` (a folder that is there, or a file) with the entries that masks remove set to +0.

    masks: layer name -> bool tensor, True = kept. config: replaces config.json of a folder.
    Safetensors files are streamed, one tensor in memory; a file of torch.save holds its changed tensors in memory.
    """
    if not checkpoint.is_folder:
        _write_file(checkpoint, 0, out, layers, masks)
        return
    for relative in model_files(checkpoint.path):
        (out / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint.path / relative, out / relative)
    if config is not None:
        (out / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    for number, file in enumerate(checkpoint.files):
        _write_file(checkpoint, number, out / file.path.name, layers, masks)
    if checkpoint.index:
        _write_index(checkpoint, out / checkpoint.index.name, layers)


def zeroed(tensor: Tensor, mask: Tensor) -> Tensor:
    """A copy with every removed entry exactly +0.0, whatever it was and whatever the dtype."""
    copy = tensor.detach().clone()
    copy.view(INTEGERS[copy.element_size()]).masked_fill_(~mask, 0)
    return copy


def _write_file(
    checkpoint: Checkpoint, number: int, target: Path, layers: Sequence[Layer], masks: Mapping[str, Tensor]
) -> None:
    file = checkpoint.files[number]
    mask_of = {stored: layer.name for layer in layers for stored in layer.tensors}
    added = {layer.name: layer for layer in layers if layer.copy_of in file.infos}
    if isinstance(file, SafetensorsFile):
        infos = [*file.infos.values(), *(TensorInfo(new.name, new.dtype, new.shape) for new in added.values())]

        def read(name: str) -> Tensor:
            tensor = file.read(added[name].source if name in added else name)
            mask = name if name in added else mask_of.get(name)
            return tensor if mask is None else zeroed(tensor, masks[mask])

        write_safetensors(target, infos, read, file.metadata)
    else:
        _write_pickle(file, target, mask_of, added, masks)


def _write_pickle(
    file: PickleFile, target: Path, mask_of: Mapping[str, str], added: Mapping[str, Layer], masks: Mapping[str, Tensor]
) -> None:
    """The whole content again, what else it holds included; what shared memory and has one mask shares it again."""
    fresh = open_pickle(file.path)  # the opened checkpoint stays as it is
    done: dict[tuple, Tensor] = {}
    for name in file.infos:
        mask = mask_of.get(name)
        if mask is not None:
            tensor = fresh.state[name]
            key = (mask, *place_of(tensor))
            if key not in done:
                done[key] = zeroed(tensor, masks[mask])
            fresh.state[name] = done[key]
    for name, layer in added.items():
        fresh.state[name] = zeroed(file.read(layer.source), masks[name])
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as stream:
            torch.save(fresh.content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_index(checkpoint: Checkpoint, target: Path, layers: Sequence[Layer]) -> None:
    """The index as it was, with the tensors that untying added."""
    assert checkpoint.index is not None
    index = json.loads(checkpoint.index.read_text())
    for layer in layers:
        if layer.copy_of is not None:
            index["weight_map"][layer.name] = index["weight_map"][layer.copy_of]
            size = TensorInfo(layer.name, layer.dtype, layer.shape)
            metadata = index.setdefault("metadata", {})
            metadata["total_size"] = int(metadata.get("total_size", 0)) + size.nbytes
            if "total_parameters" in metadata:
                metadata["total_parameters"] = int(metadata["total_parameters"]) + size.size
    target.write_text(json.dumps(index, indent=2) + "\n")
