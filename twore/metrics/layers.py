"""Which weights the spectral metrics measure: convolutions and linear layers, each once, never embeddings or norms.

Taken from a model by module type, or from a mapping (a state dict) by number of axes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Weights: TypeAlias = nn.Module | Mapping[str, Tensor | np.ndarray]

KINDS = ("conv", "linear")
PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of nn.MultiheadAttention


def spectral_weights(
    model_or_mapping: Weights, *, kinds: Iterable[str] = KINDS, layers: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Name -> weight of each layer that the spectral metrics measure, detached, not copied.

    A model: the weights of nn.Linear, nn.ConvNd and their transposed kin, transformers' Conv1D, and the packed
    projections of nn.MultiheadAttention, by names as in `model.named_parameters()`; a weight used twice is listed once,
    under its first name. Embeddings, position tables, norms and biases are left out. A masked or parametrised weight is
    taken as the layer uses it.
    A mapping: 2 axes are a linear weight, 3 to 5 a convolution (out, in, ...), all else is left out. A state dict does
    not tell an embedding from a linear weight: name the layers then.

    kinds: "conv", "linear" or both. layers: names, or patterns with * and ?, to restrict the choice to.
    ValueError when nothing is found, for an unknown kind or layer, and for weights that hold no numbers (meta, lazy).
    """
    wanted = _checked_kinds(kinds)
    source = model_or_mapping
    every = _of_model(source) if isinstance(source, nn.Module) else _of_mapping(source)
    found = {name: weight for name, weight in every if kind_of(weight) in wanted}
    if not found:
        raise ValueError(f"no {' or '.join(wanted)} weight found: pass a model or mapping that has one, or other kinds")
    if layers is not None:
        found = _restricted(found, [layers] if isinstance(layers, str) else list(layers))
    return found


def kind_of(weight: Tensor) -> str:
    """ "linear" for two axes, else "conv"."""
    return "linear" if weight.ndim == 2 else "conv"


def _of_model(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for attribute in _attributes(module):
            weight = getattr(module, attribute)
            name = f"{prefix}.{attribute}" if prefix else attribute
            if not isinstance(weight, Tensor) or weight.is_meta or isinstance(weight, nn.UninitializedParameter):
                raise ValueError(f"the weight {name} holds no numbers (meta or lazy): load or initialise it first")
            if not weight.is_floating_point():
                raise ValueError(f"the weight {name} is {weight.dtype}: a quantised layer must be dequantised first")
            if id(weight) not in seen:
                seen.add(id(weight))
                yield name, weight.detach()


def _attributes(module: nn.Module) -> list[str]:
    if isinstance(module, nn.MultiheadAttention):  # its output projection is an nn.Linear of its own
        return [name for name in PACKED if getattr(module, name) is not None]
    # transformers need not be installed to recognise its layer
    hf_conv1d = any(t.__name__ == "Conv1D" and t.__module__ == "transformers.pytorch_utils" for t in type(module).mro())
    if hf_conv1d or isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return ["weight"]
    return []


def _of_mapping(mapping: Mapping[str, Tensor | np.ndarray]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"pass a model or a mapping from name to weight: got {type(mapping).__name__}")
    for name, value in mapping.items():
        weight = torch.tensor(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value
        if isinstance(weight, Tensor) and 2 <= weight.ndim <= 5:
            if weight.is_meta:
                raise ValueError(f"the weight {name} holds no numbers (meta): load it first")
            if weight.is_quantized:
                raise ValueError(f"the weight {name} is {weight.dtype}: pass weight.dequantize()")
            yield name, weight.detach()


def _checked_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not wanted or any(kind not in KINDS for kind in wanted):
        raise ValueError(f"kinds are one or both of {', '.join(KINDS)}: got {wanted}")
    return wanted


def _restricted(found: dict[str, Tensor], patterns: list[str]) -> dict[str, Tensor]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in found):
            close = difflib.get_close_matches(pattern, found, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(list(found)[:8])}"
            raise ValueError(f"no layer is named {pattern!r}: {hint}")
    if not patterns:
        raise ValueError("layers is empty: name at least one, or leave it out for all")
    return {name: weight for name, weight in found.items() if any(fnmatchcase(name, p) for p in patterns)}
