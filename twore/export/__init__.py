"""Users' models, pruned and kept usable: the same layout with zeros in place, smaller files, and what they are worth.

    pruned = prune_checkpoint("my-model", 0.9, "my-model-pruned", choose=LayerChoice(exclude="lm_head"))
    export_compact("my-model-pruned", "compact.safetensors")      # bit masks and kept values
    restore_compact("compact.safetensors", "model.safetensors")   # bit for bit the same tensors
    print(sparse_speed(layer_weights("my-model-pruned")).sentence())

Nothing is written into the folder that is read.
"""

from twore.checkpoints import CheckpointError, LayerChoice
from twore.export.bundle import Exported, export_model, restore_model
from twore.export.compact import export_compact, read_compact, restore_compact
from twore.export.onnx import export_onnx
from twore.export.plain import export_safetensors, layer_weights
from twore.export.prune import PrunedCheckpoint, prune_checkpoint
from twore.export.sizes import measure_sizes
from twore.export.speed import SparseSpeed, sparse_speed

__all__ = [
    "CheckpointError",
    "Exported",
    "LayerChoice",
    "PrunedCheckpoint",
    "SparseSpeed",
    "export_compact",
    "export_model",
    "export_onnx",
    "export_safetensors",
    "layer_weights",
    "measure_sizes",
    "prune_checkpoint",
    "read_compact",
    "restore_compact",
    "restore_model",
    "sparse_speed",
]
