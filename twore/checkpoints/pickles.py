"""State dicts written by torch.save (.pt, .pth, .bin), read without ever running code of the file.

Only `torch.load(weights_only=True)` is used, which builds tensors and plain containers and nothing else. A file that
asks for anything more (a whole pickled model, an object of a library, a call of os.system) is refused, and the refusal
says what it asked for. Files in torch's zip format (since 1.6) are mapped, not loaded: their tensors come into memory
as they are used.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import set_default_mmap_options

from twore.checkpoints.errors import CheckpointError
from twore.checkpoints.tensor_files import TensorInfo

# where training scripts put the weights in what they save beside them; the first that is there counts
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")


@dataclass(frozen=True)
class PickleFile:
    """A file that was opened by `open_pickle`."""

    path: Path
    infos: dict[str, TensorInfo]
    content: Any  # all that the file holds
    state: MutableMapping[str, Any]  # the state dict, `content` itself or a part of it
    container: str | None  # the name of that part

    def read(self, name: str) -> Tensor:
        """The tensor `name`: the file's own memory, not to be changed."""
        return self.state[name].detach()

    def others(self) -> dict[str, Mapping[str, Any]]:
        """Other state dicts that the file holds beside `state`, by their names in it."""
        if self.container is None:
            return {}
        return {str(key): value for key, value in self.content.items() if key != self.container and _is_state(value)}

    def shared(self) -> list[tuple[str, ...]]:
        """Names that are one tensor in the file (tied weights), a tuple a tensor."""
        groups: dict[Any, list[str]] = {}
        for name in self.infos:
            groups.setdefault(place_of(self.state[name]), []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]


def open_pickle(path: Path) -> PickleFile:
    """Open a state dict. CheckpointError for a file that would run code, is damaged, or holds no state dict."""
    content = _load(path)
    state, container = _find_state(path, content)
    infos = {name: _info(path, name, value) for name, value in state.items() if isinstance(value, Tensor)}
    return PickleFile(path, infos, content, state, container)


def place_of(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two tensors that are the same entries of the same memory."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _load(path: Path) -> Any:
    try:
        # private: a change of a mapped tensor would stay in memory and never reach the user's file
        with set_default_mmap_options(mmap.MAP_PRIVATE), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on old pickle protocols; an error follows if it matters
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        culprit = _what_it_asks_for(path, str(error))
        if culprit is None:
            raise CheckpointError(_damaged(path)) from error
        raise CheckpointError(
            f"{path} is refused, since loading it would run code of its own ({culprit}): where you trust it, load it "
            "there and save its state dict alone, torch.save(model.state_dict(), ...), or as safetensors"
        ) from error
    except FileNotFoundError:
        raise
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript program: save the state dict of its model instead"
            ) from error
        raise CheckpointError(_damaged(path)) from error
    except (EOFError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"{path} is truncated, or not a file of torch.save: copy or download it again"


def _what_it_asks_for(path: Path, message: str) -> str | None:
    """The function or class that the file names, e.g. "posix.system", found without running the file; None for none."""
    named = re.search(r"GLOBAL (\S+)", message)
    if named:
        return named.group(1)
    try:
        strings: list[str] = []
        for operation, argument, _ in pickletools.genops(path.read_bytes()):
            if operation.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if operation.name == "STACK_GLOBAL" and len(strings) >= 2:
                return ".".join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except (ValueError, OSError):  # not a pickle all through
        pass
    return None


def _find_state(path: Path, content: Any) -> tuple[MutableMapping[str, Any], str | None]:
    if _is_state(content):
        return content, None
    parts = {key: value for key, value in content.items() if _is_state(value)} if isinstance(content, dict) else {}
    for container in CONTAINERS:
        if container in parts:
            return parts[container], container
    if len(parts) == 1:
        container, state = next(iter(parts.items()))
        return state, str(container)
    several = f"several state dicts ({', '.join(map(str, parts))})" if parts else "no state dict"
    raise CheckpointError(f"{path} holds {several}: save the one you mean alone, torch.save(model.state_dict(), ...)")


def _is_state(value: Any) -> bool:
    """A dict of names to tensors; modules may put other things among them (`_extra_state`)."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return False
    tensors = [item for item in value.values() if isinstance(item, Tensor)]
    return bool(tensors) and not any(isinstance(item, Mapping) for item in value.values())


def _info(path: Path, name: str, tensor: Tensor) -> TensorInfo:
    if tensor.is_meta:
        raise CheckpointError(
            f"{path}: {name} has a shape but no data (it was saved on the meta device): save it again"
        )
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else str(tensor.layout)
        raise CheckpointError(f"{path}: {name} is {kind}, and twore reads plain dense tensors: convert it first")
    return TensorInfo(name, tensor.dtype, tuple(tensor.shape))
