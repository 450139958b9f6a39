"""People's own checkpoints: read without running their code, one tensor at a time; written again in the same layout.

    checkpoint = open_checkpoint("my-model")          # a Hugging Face folder, .safetensors, .pt
    checkpoint.tensors["lm_head.weight"].shape        # known from the headers
    checkpoint.read("lm_head.weight")                 # this one tensor
    layers = find_layers(checkpoint, LayerChoice(exclude="lm_head"))

The folder or file that was opened is never written to.
"""

from twore.checkpoints.errors import CheckpointError
from twore.checkpoints.folders import model_files, other_files
from twore.checkpoints.layers import Layer, LayerChoice, Layers, find_layers
from twore.checkpoints.opening import Checkpoint, LazyTensors, open_checkpoint
from twore.checkpoints.places import check_out, new_files, new_folder
from twore.checkpoints.tensor_files import TensorInfo, write_safetensors
from twore.checkpoints.writing import write_like

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Layer",
    "LayerChoice",
    "Layers",
    "LazyTensors",
    "TensorInfo",
    "check_out",
    "find_layers",
    "model_files",
    "new_files",
    "new_folder",
    "open_checkpoint",
    "other_files",
    "write_like",
    "write_safetensors",
]
