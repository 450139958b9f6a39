"""A stored checkpoint put into a model that the user built: matched by name, nothing of the file is run.

Names fit as they are, without a wrapper's prefix ("module.", "model.", "_orig_mod."), or, for a Hugging Face model and
folder, as `from_pretrained` fits them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from twore.advise.finding import Found
from twore.checkpoints import Checkpoint, CheckpointError, Layer, open_checkpoint
from twore.pruning import prunable_weights
from twore.pruning.spec import Pruning

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, Lightning and common habit


@torch.no_grad()
def fill_model(model: nn.Module, found: Found) -> nn.Module:
    """The model with the checkpoint's weights, in eval mode. CheckpointError when names or shapes do not fit."""
    checkpoint = open_checkpoint(found.path)
    stored = stored_names(model, checkpoint)
    if stored is None:
        return _by_class(model, checkpoint).eval()
    state = model.state_dict()
    for name, tensor in state.items():
        if name in stored:
            value = checkpoint.read(stored[name])
            if value.shape != tensor.shape:
                raise CheckpointError(
                    f"{found.path}: {stored[name]} is {tuple(value.shape)}, and the model has {tuple(tensor.shape)}: "
                    "build the model that was trained"
                )
            tensor.copy_(value)
    return model.eval()


def stored_names(model: nn.Module, checkpoint: Checkpoint) -> dict[str, str] | None:
    """Name in the model -> stored name, for every tensor of the model that is stored; None when names do not fit.

    What the file lacks must be a tied weight whose other name it has.
    """
    state = model.state_dict()
    for prefix in ("", *PREFIXES):
        fitted = {name: prefix + name for name in state if prefix + name in checkpoint.tensors}
        for name in set(state) - set(fitted):  # wrapped the other way round: the model has the prefix
            if prefix and name.startswith(prefix) and name.removeprefix(prefix) in checkpoint.tensors:
                fitted[name] = name.removeprefix(prefix)
        there = {state[name].data_ptr() for name in fitted}
        if fitted and all(name in fitted or state[name].data_ptr() in there for name in state):
            return fitted
    return None


def tied_weights(model: nn.Module) -> tuple[str, ...]:
    """All names of weights that several modules use (a prediction layer that is the embedding)."""
    users: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                users.setdefault(id(parameter), []).append(f"{path}.{attribute}".lstrip("."))
    return tuple(name for names in users.values() if len(names) > 1 for name in names)


def layers_of(model: nn.Module, pruning: Pruning, checkpoint: Checkpoint) -> tuple[Layer, ...] | None:
    """The layers that `pruning` names in a model, as stored; None where the stored names are others."""
    stored = stored_names(model, checkpoint)
    if stored is None:
        return None
    weights = prunable_weights(model, pruning.kinds, include=pruning.include or None, exclude=pruning.exclude or None)
    layers = []
    for name, weight in weights.items():
        if name not in stored:
            return None
        info = checkpoint.tensors[stored[name]]
        kind = "linear" if weight.ndim == 2 else "conv"
        layers.append(Layer(name, kind, tuple(info.shape), info.dtype, (stored[name],)))
    return tuple(layers)


def _by_class(model: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    reader = getattr(type(model), "from_pretrained", None)
    if reader is None or checkpoint.config() is None:
        lacking = sorted(set(model.state_dict()) - set(checkpoint.tensors))
        example = f"it has no {lacking[0]}" if lacking else "other names"
        raise CheckpointError(
            f"{checkpoint.path} does not fit the model that was built ({example}): build the model that was trained"
        )
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded, about = reader(Path(checkpoint.path).resolve(), dtype=torch.float32, output_loading_info=True)
    if about["missing_keys"] or about["mismatched_keys"]:
        name = [*about["missing_keys"], *about["mismatched_keys"]][0]
        raise CheckpointError(
            f"{checkpoint.path} lacks {name} of {type(model).__name__}: build the model that was trained"
        )
    return loaded
