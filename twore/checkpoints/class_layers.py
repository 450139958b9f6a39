"""Layers told by the model class: `twore.pruning.prunable_weights` on a model without data, matched to stored tensors.

Ties are those of the class, unless the folder stores several copies that differ: transformers (5 and later) then loads
them as separate weights, and so they are here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from twore.checkpoints.errors import CheckpointError
from twore.checkpoints.layers import Layer, LayerChoice, Layers
from twore.checkpoints.model_class import break_ties, meta_model, stored_to_model, weight_groups
from twore.checkpoints.opening import Checkpoint
from twore.checkpoints.ties import untied_config
from twore.pruning import KINDS, prunable_weights
from twore.pruning.choices import listed

Stored = Mapping[str, tuple[str, ...]]  # name in the model -> the stored tensors that become it


def layers_by_class(checkpoint: Checkpoint, choice: LayerChoice) -> Layers:
    """See `find_layers`."""
    if not checkpoint.is_folder:
        raise CheckpointError(
            f"{checkpoint.path} is a file without a config.json, which names the class: use by='names'"
        )
    model = meta_model(checkpoint.path)
    groups = weight_groups(model)
    stored = _stored_names(model, checkpoint)
    break_ties(model)  # so that every use can be chosen by itself
    weights = prunable_weights(model, choice.kinds, include=choice.include, exclude=choice.exclude)

    uses = {name: group for names in groups for group in _really_tied(names, stored, checkpoint) for name in group}
    chosen: dict[str, Layer] = {}
    notes: list[str] = []
    untied: list[str] = []
    for name in weights:
        tie = uses[name]
        if len(tie) > 1 and _matches(tie, choice.exclude):
            continue  # the same matrix was excluded under another of its names
        if len(tie) > 1 and choice.tied == "skip":
            notes.append(f"{name} is left dense: it is tied to {listed(_others(tie, name))}")
            continue
        if len(tie) > 1 and choice.tied == "refuse":
            raise ValueError(_refusal(name, tie))
        layer = _layer(name, tie, model, stored, checkpoint, untie=choice.tied == "untie")
        if len(tie) > 1:
            untied += [name] if choice.tied == "untie" else []
            notes.append(_what_a_choice_means(name, tie, choice.tied))
        chosen[layer.name] = layer
    if not chosen:
        raise ValueError("nothing is left to prune but tied weights: choose tied='prune' or tied='untie' (--tied)")
    config = untied_config(checkpoint, groups) if untied else None
    known = {name for names in stored.values() for name in names}
    strangers = [name for name, info in checkpoint.tensors.items() if name not in known and len(info.shape) > 1]
    if strangers:
        notes.append(f"left dense, since the class keeps them in another form: {listed(strangers)}")
    return Layers(tuple(chosen.values()), tuple(notes), config)


def _stored_names(model: nn.Module, checkpoint: Checkpoint) -> Stored:
    found: dict[str, list[str]] = {}
    for stored, name in stored_to_model(model, checkpoint.tensors).items():
        found.setdefault(name, []).append(stored)
    return {name: tuple(stored) for name, stored in found.items()}


def _really_tied(names: tuple[str, ...], stored: Stored, checkpoint: Checkpoint) -> list[tuple[str, ...]]:
    """The names of one parameter, parted by the contents of their stored copies; names without one join the first."""
    kept = [name for name in names if name in stored]
    if len(names) == 1 or len(kept) < 2:
        return [names]
    parts: list[list[str]] = []
    for name in kept:
        tensor = checkpoint.read(stored[name][0])
        for part in parts:
            if torch.equal(checkpoint.read(stored[part[0]][0]), tensor):
                part.append(name)
                break
        else:
            parts.append([name])
    parts[0] += [name for name in names if name not in stored]
    return [tuple(sorted(part, key=names.index)) for part in parts]


def _layer(
    name: str, tie: tuple[str, ...], model: nn.Module, stored: Stored, checkpoint: Checkpoint, *, untie: bool
) -> Layer:
    copies = {use: stored[use] for use in tie if use in stored}
    if not copies:
        raise CheckpointError(
            f"{checkpoint.path} stores no tensor for {name} of its class {type(model).__name__}: the class or its "
            "version does not fit the weights; tell layers by names and shapes, --layers names"
        )
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    weight = model.get_parameter(name)
    source = checkpoint.tensors[next(iter(copies.values()))[0]]
    if source.shape != tuple(weight.shape):
        raise CheckpointError(
            f"{checkpoint.path}: {source.name} is {source.shape}, and its class {type(model).__name__} has "
            f"{tuple(weight.shape)}: config.json is of another model"
        )
    if not source.dtype.is_floating_point:
        raise CheckpointError(f"{checkpoint.path}: {source.name} is quantised ({source.dtype}): prune it before that")
    alone = untie and len(tie) > 1
    tensors = copies.get(name, ()) if alone else tuple(one for names in copies.values() for one in names)
    return Layer(
        name=name if alone or len(tie) == 1 else tie[0],
        kind=next(kind for kind, weights_of in KINDS.items() if attribute in weights_of(module)),
        shape=source.shape,
        dtype=source.dtype,
        tensors=tensors,
        copy_of=None if tensors else source.name,
        transposed=type(module).__name__ == "Conv1D",
    )


def _matches(names: Sequence[str], patterns: str | Sequence[str] | None) -> bool:
    every = [patterns] if isinstance(patterns, str) else list(patterns or ())
    spellings = [spelling for name in names for spelling in (name, name.rpartition(".")[0])]
    return any(fnmatch.fnmatchcase(spelling, pattern) for pattern in every for spelling in spellings)


def _others(tie: tuple[str, ...], name: str) -> list[str]:
    return [use for use in tie if use != name]


def _refusal(name: str, tie: tuple[str, ...]) -> str:
    return (
        f"{name} is tied to {listed(_others(tie, name))}, so pruning it prunes them too: leave it dense (--tied skip "
        f"or --exclude {name.rpartition('.')[0]}), prune the shared matrix "
        "(--tied prune), or prune a copy (--tied untie)"
    )


def _what_a_choice_means(name: str, tie: tuple[str, ...], choice: str) -> str:
    others = listed(_others(tie, name))
    if choice == "prune":
        return f"{name} is tied to {others}: they hold the same zeros now"
    return f"{name} has a matrix of its own now and is pruned; {others} stay dense, and the model is larger by it"
