"""A checkpoint as one plain safetensors file, and its layers as a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from twore.checkpoints import LayerChoice, LazyTensors, check_out, find_layers, open_checkpoint, write_safetensors


def export_safetensors(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write every tensor of a checkpoint to one safetensors file, streamed. Returns the file.

    Names that share memory in a file of torch.save are written once each, since safetensors knows no sharing; what
    such a file holds beside its state dict is left out.
    """
    source, target = Path(path), Path(out)
    checkpoint = open_checkpoint(source)
    check_out(source, target, folder=False)
    write_safetensors(target, checkpoint.tensors.values(), checkpoint.read, {"format": "pt"})
    return target


def layer_weights(path: str | os.PathLike[str], choose: LayerChoice | None = None) -> Mapping[str, Tensor]:
    """The weights of a checkpoint's layers, name -> tensor, read when asked for.

    choose: default every linear and convolution layer; tied ones count, since nothing is changed. GPT-2's transposed
    weights are turned, so that every linear weight is (out, in).
    """
    checkpoint = open_checkpoint(path)
    layers = {layer.name: layer for layer in find_layers(checkpoint, choose or LayerChoice(tied="prune")).chosen}

    def read(name: str) -> Tensor:
        weight = checkpoint.read(layers[name].source)
        return weight.T if layers[name].transposed else weight

    return LazyTensors({name: name for name in layers}, read)
