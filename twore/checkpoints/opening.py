"""A checkpoint as people have it: a Hugging Face folder, a safetensors file, or a state dict of torch.save."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from twore.checkpoints.errors import CheckpointError
from twore.checkpoints.folders import read_index, weight_files
from twore.checkpoints.pickles import PickleFile, open_pickle
from twore.checkpoints.tensor_files import SafetensorsFile, TensorInfo, open_safetensors

TensorFile = SafetensorsFile | PickleFile
LFS_POINTER = b"version https://git-lfs"
PICKLES = (".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """What `open_checkpoint` returns. Opening reads headers; a tensor is read when it is asked for."""

    path: Path
    files: tuple[TensorFile, ...]
    index: Path | None  # of a sharded folder

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every tensor: name -> dtype and shape, in the order of the files."""
        return {name: info for file in self.files for name, info in file.infos.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in its stored dtype; not to be changed in place."""
        return self._home[name].read(name)

    def lazily(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """A mapping that reads a tensor each time it is asked for, so that one at a time is in memory."""
        return LazyTensors({name: name for name in names}, self.read)

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    def config(self) -> dict[str, Any] | None:
        """config.json of a Hugging Face folder; None where there is none. CheckpointError when it is no JSON object."""
        path = self.path / "config.json"
        if not self.is_folder or not path.is_file():
            return None
        try:
            config = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is truncated, or not JSON: copy or download it again") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{path} is not a model's config: copy or download it again")
        return config

    @cached_property
    def _home(self) -> dict[str, TensorFile]:
        return {name: file for file in self.files for name in file.infos}


@dataclass(frozen=True)
class LazyTensors(Mapping[str, Tensor]):
    """Names given to stored tensors, which are read on every access."""

    stored: Mapping[str, str]  # name -> the tensor's name in the checkpoint
    read: Callable[[str], Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.read(self.stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint for reading; nothing is ever written to it, and no code of it is run.

    path: a Hugging Face folder (safetensors or .bin, single or sharded), a .safetensors file, or a .pt, .pth, .bin or
        .ckpt file with a state dict (alone or under a usual name such as "state_dict").
    Raises FileNotFoundError when there is nothing, CheckpointError (one sentence) for what cannot be read.
    """
    place = Path(path)
    if place.is_dir():
        files, index = weight_files(place)
        opened = tuple(_open_file(file) for file in files)
        if index:
            _check_index(index, opened)
        return Checkpoint(place, opened, index)
    if not place.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {place}: name a folder, a .safetensors or a .pt file of this machine "
            "(a model of the hub is downloaded first)"
        )
    return Checkpoint(place, (_open_file(place),), None)


def _open_file(path: Path) -> TensorFile:
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    if path.suffix in PICKLES:
        return open_pickle(path)
    kinds = ", ".join((".safetensors", *PICKLES))
    raise CheckpointError(f"{path} is no checkpoint that twore knows: a Hugging Face folder, or a file of {kinds}")


def _check_index(index: Path, files: Sequence[TensorFile]) -> None:
    there = {file.path.name: file.infos for file in files}
    for name, file in read_index(index).items():
        if name not in there[file]:
            raise CheckpointError(f"{index.parent / file} lacks {name}, which {index.name} lists: download it again")
