"""Layers told by names and shapes alone, for state dicts without a model class.

A floating-point tensor whose name ends in "weight" (`weight`, `in_proj_weight`) counts: with 3 to 5 dimensions as a
convolution, with 2 as a linear layer unless its name says embedding, position, norm or bias. What cannot be seen this
way: a linear layer with such a name (it stays dense), an embedding with another name (exclude it), and a tie whose
second name was left out of the file. Names that share memory in a file of torch.save are seen as tied.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from twore.checkpoints.layers import Layer, LayerChoice, Layers
from twore.checkpoints.opening import Checkpoint
from twore.checkpoints.pickles import PickleFile
from twore.checkpoints.tensor_files import TensorInfo
from twore.pruning import KINDS
from twore.pruning.choices import listed, nearest, unknown

# names in widely used models: emb, wte, wpe (GPT-2), shared (T5); "embed" anywhere; T5's relative_attention_bias
EMBEDDING_MODULES = {"emb", "wte", "wpe", "shared", "lookup"}
OTHER_WORDS = {"pos", "position", "positions", "positional", "norm", "bias"}


def layers_by_names(checkpoint: Checkpoint, choice: LayerChoice) -> Layers:
    """See `find_layers`."""
    chosen_kinds = [choice.kinds] if isinstance(choice.kinds, str) else list(choice.kinds)
    for kind in chosen_kinds:
        if kind not in KINDS:
            raise unknown("kind of weight", kind, KINDS)
    kinds = {name: _kind(info) for name, info in checkpoint.tensors.items()}
    candidates = [name for name, kind in kinds.items() if kind in chosen_kinds]
    includes, excludes = _as_list(choice.include), _as_list(choice.exclude)
    for pattern in includes or []:
        _check(pattern, candidates, "matches no layer")
    for pattern in excludes or []:
        _check(pattern, list(checkpoint.tensors), "matches no tensor")
    chosen = [
        name
        for name in candidates
        if (includes is None or _matches(name, includes)) and not _matches(name, excludes or [])
    ]
    if not chosen:
        raise ValueError(
            f"no {' or '.join(chosen_kinds)} layer is left of {len(checkpoint.tensors)} tensors in {checkpoint.path}, "
            "told by names and shapes: widen --include, --exclude or --kinds"
        )
    ties = {
        name: group
        for file in checkpoint.files
        if isinstance(file, PickleFile)
        for group in file.shared()
        for name in group
    }
    layers: dict[str, Layer] = {}
    notes = ["layers were told by the tensors' names and shapes, and masks carry these names"]
    for name in chosen:
        info, group = checkpoint.tensors[name], ties.get(name, (name,))
        if len(group) > 1 and _any_excluded(group, excludes or []):
            continue
        if len(group) > 1 and choice.tied == "skip":
            notes.append(f"{name} is left dense: it is tied to {listed(other for other in group if other != name)}")
            continue
        if len(group) > 1 and choice.tied == "refuse":
            raise ValueError(
                f"{name} is tied to {listed(other for other in group if other != name)}: leave it dense (--tied skip), "
                "prune the shared matrix (--tied prune), or prune a copy (--tied untie)"
            )
        shared = len(group) > 1 and choice.tied == "prune"
        first = group[0] if shared else name
        layers[first] = Layer(first, str(kinds[name]), info.shape, info.dtype, group if shared else (name,))
    if not layers:
        raise ValueError("nothing is left to prune but tied weights: choose tied='prune' or tied='untie' (--tied)")
    return Layers(tuple(layers.values()), tuple(notes))


def _kind(info: TensorInfo) -> str | None:
    if not info.dtype.is_floating_point or not info.name.endswith("weight"):
        return None
    if len(info.shape) == 2:
        return None if _is_a_table(info.name.lower()) else "linear"
    return "conv" if 3 <= len(info.shape) <= 5 else None


def _is_a_table(name: str) -> bool:
    words = set(re.split(r"[._\d]+", name))
    return "embed" in name or bool(EMBEDDING_MODULES & set(name.split("."))) or bool(OTHER_WORDS & words)


def _as_list(patterns: str | Sequence[str] | None) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else None if patterns is None else list(patterns)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    spellings = (name, name.rpartition(".")[0])
    return any(fnmatch.fnmatchcase(spelling, pattern) for pattern in patterns for spelling in spellings)


def _any_excluded(group: Sequence[str], excludes: Sequence[str]) -> bool:
    return any(_matches(name, excludes) for name in group)


def _check(pattern: str, names: Sequence[str], complaint: str) -> None:
    if not any(_matches(name, [pattern]) for name in names):
        modules = [name.rpartition(".")[0] for name in names]
        raise ValueError(f"{pattern!r} {complaint}{nearest(pattern, [*names, *modules])}")
