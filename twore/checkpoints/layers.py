"""Which tensors of a checkpoint are prunable layers: by the model class where there is one, else by names and shapes.

Tied weights (a prediction layer that is the embedding) are one matrix with two jobs, so pruning one prunes the other.
They are refused until a choice is made: "skip" leaves them dense, "prune" zeroes the shared matrix for all its uses,
"untie" gives the layer a matrix of its own and leaves the embedding dense. `exclude` leaves a layer out before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from twore.checkpoints.errors import CheckpointError
from twore.checkpoints.opening import Checkpoint
from twore.checkpoints.tensor_files import SafetensorsFile
from twore.pruning.choices import unknown
from twore.pruning.files import KEY as MASKS_KEY

TIED = ("refuse", "skip", "prune", "untie")
BY = ("auto", "class", "names")
COMPACT_KEY = "twore_compact"  # in the metadata of a file in the compact form (twore.export.compact)


@dataclass(frozen=True)
class LayerChoice:
    """What the user chose. Patterns are globs, compared with a weight's name and with its module's name."""

    kinds: str | Sequence[str] = ("conv", "linear")
    """conv, linear, or both."""
    include: str | Sequence[str] | None = None
    """Only what matches one of these."""
    exclude: str | Sequence[str] | None = None
    """What is left dense; it wins over include."""
    tied: str = "refuse"
    """refuse, skip (leave dense), prune (all uses of the shared matrix), untie (a copy of its own is pruned)."""
    by: str = "auto"
    """class (of config.json), names (names and shapes of the tensors), auto: class for folders, names for files."""

    def __post_init__(self) -> None:
        for what, given, known in (("choice for tied weights", self.tied, TIED), ("way to tell layers", self.by, BY)):
            if given not in known:
                raise unknown(what, given, known)


@dataclass(frozen=True)
class Layer:
    """One prunable weight."""

    name: str  # as in model.named_parameters() where the class is known, else the tensor's own
    kind: str  # conv, linear
    shape: tuple[int, ...]
    dtype: torch.dtype
    tensors: tuple[str, ...]  # stored tensors that hold it; several for copies of a tied weight
    copy_of: str | None = None  # untie: the stored tensor that a new tensor `name` is copied from
    transposed: bool = False  # stored (in, out), as transformers' Conv1D

    @property
    def source(self) -> str:
        """The stored tensor with its values."""
        return self.copy_of or self.tensors[0]


@dataclass(frozen=True)
class Layers:
    """What `find_layers` returns."""

    chosen: tuple[Layer, ...]
    notes: tuple[str, ...] = ()  # a sentence each: what was left dense, what a choice means
    config: dict | None = None  # config.json as it must be written, when a choice changes it


def find_layers(checkpoint: Checkpoint, choice: LayerChoice | None = None) -> Layers:
    """The layers of a checkpoint that `choice` (default: every linear and convolution layer) asks for.

    Raises CheckpointError when the class cannot be built or does not fit the tensors, ValueError for a pattern that
    matches nothing, a tied weight without a choice, and when nothing is left.
    """
    from twore.checkpoints.class_layers import layers_by_class
    from twore.checkpoints.name_layers import layers_by_names

    choice = choice or LayerChoice()
    _refuse_our_own(checkpoint)
    by = choice.by
    if by == "auto":
        by = "class" if checkpoint.config() is not None else "names"
    return layers_by_class(checkpoint, choice) if by == "class" else layers_by_names(checkpoint, choice)


def _refuse_our_own(checkpoint: Checkpoint) -> None:
    """CheckpointError for a file of masks or in the compact form, which hold no layers."""
    for file in checkpoint.files:
        if isinstance(file, SafetensorsFile) and MASKS_KEY in file.metadata:
            raise CheckpointError(f"{file.path} holds masks, not weights: name the model that they belong to")
        if isinstance(file, SafetensorsFile) and COMPACT_KEY in file.metadata:
            raise CheckpointError(f"{file.path} is in the compact form: make it dense first, twore export --restore")
