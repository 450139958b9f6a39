"""Which weights of a model are prunable: decided by module type, never by a guess from a parameter's name.

"conv" is the weight of Conv1d/2d/3d and ConvTranspose1d/2d/3d; "linear" is the weight of nn.Linear, of transformers'
Conv1D (a linear layer stored transposed: GPT-2) and the packed or separate query/key/value projections of
nn.MultiheadAttention (its out_proj is an nn.Linear). Subclasses count. Embeddings, norms and biases are never
prunable; neither is a weight that a module keeps as a bare Parameter of its own (fused experts): give such weights to
`make_masks` in a mapping of your own.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from twore.pruning.choices import listed, nearest, unknown

Patterns = str | Sequence[str] | None


def prunable_weights(
    model: nn.Module,
    kinds: str | Sequence[str] = ("conv", "linear"),
    *,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, nn.Parameter]:
    """The weights that may be pruned: name -> Parameter, named and ordered as in `model.named_parameters()`.

    kinds: of "conv" and "linear" (`KINDS`).
    include, exclude: a glob pattern or several, compared with a weight's name ("layer1.0.conv1.weight") and with its
        module's name ("layer1.0.conv1"); `exclude` wins. A pattern that matches nothing is an error.

    A weight shared with another module (a prediction layer tied to an embedding) is refused, because pruning it prunes
    both: exclude it, or name it exactly, without wildcards, in `include` (`include=["*", "lm_head.weight"]`).
    One module registered under two names is one use, and is known by its first name.

    Raises ValueError for an unknown kind, a pattern that matches nothing, a tied weight that was not chosen, a weight
    that is not a plain Parameter yet (lazy) or any more (parametrized), and when nothing is left.
    """
    chosen_kinds = _check_kinds(kinds)
    includes, excludes = _as_list(include), _as_list(exclude)
    every = _candidates(model)
    candidates = [candidate for candidate in every if candidate.kind in chosen_kinds]
    _check_patterns(model, candidates, includes or [], excludes or [])

    chosen = [
        candidate
        for candidate in candidates
        if (includes is None or candidate.matches(includes)) and not candidate.matches(excludes or [])
    ]
    if not chosen:
        raise ValueError(_nothing_found(model, chosen_kinds, every, candidates))
    _check_plain(chosen)
    _check_ties(chosen, includes or [])
    names = {candidate.uses[0] for candidate in chosen}
    return {name: parameter for name, parameter in model.named_parameters() if name in names}


def plain_name(name: str) -> str:
    """A parameter's name without the prefix that torch.compile(module) adds, so that masks fit both models."""
    return name.replace("_orig_mod.", "")


def _conv_weights(module: nn.Module) -> tuple[str, ...]:
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return ("weight",) if isinstance(module, convolutions) else ()


def _linear_weights(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, nn.MultiheadAttention):
        packed = module.kdim == module.embed_dim == module.vdim
        return ("in_proj_weight",) if packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    return ("weight",) if isinstance(module, nn.Linear) or _is_transformers_conv1d(module) else ()


# kind -> the names of a module's weights of that kind
KINDS: dict[str, Callable[[nn.Module], tuple[str, ...]]] = {"conv": _conv_weights, "linear": _linear_weights}


def _is_transformers_conv1d(module: nn.Module) -> bool:
    """By its class's name and home, so that transformers (seconds of import) is not loaded for models without it."""
    classes = type(module).__mro__
    return any(cls.__name__ == "Conv1D" and cls.__module__.split(".")[0] == "transformers" for cls in classes)


@dataclass(frozen=True)
class _Candidate:
    kind: str
    module: nn.Module
    attribute: str
    uses: tuple[str, ...]  # every name of this weight in the model, first the one that named_parameters() gives it

    @property
    def spellings(self) -> set[str]:
        """All that a pattern may be compared with: weight names and module names, plain and as compiled."""
        names = set(self.uses) | {use.rpartition(".")[0] for use in self.uses}
        return {spelling for name in names for spelling in (name, plain_name(name))} - {""}

    def matches(self, patterns: Iterable[str]) -> bool:
        return any(_matches(pattern, self.spellings) for pattern in patterns)


def _candidates(model: nn.Module) -> list[_Candidate]:
    """Every weight of every kind, in the order of the modules; a tied weight once for each prunable use."""
    users: dict[Hashable, list[str]] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                users.setdefault(_storage_key(parameter), []).append(_join(path, attribute))
    found = []
    for path, module in model.named_modules():
        for kind, weight_names in KINDS.items():
            for attribute in weight_names(module):
                parameter = module._parameters.get(attribute)
                uses = [_join(path, attribute)] if parameter is None else users[_storage_key(parameter)]
                found.append(_Candidate(kind, module, attribute, tuple(uses)))
    return found


def _storage_key(parameter: nn.Parameter) -> Hashable:
    """Equal for one Parameter used twice and for two Parameters that start at the same memory."""
    if is_lazy(parameter) or parameter.numel() == 0 or parameter.is_meta or parameter.data_ptr() == 0:
        return id(parameter)
    return (str(parameter.device), parameter.data_ptr())


def _join(path: str, attribute: str) -> str:
    return f"{path}.{attribute}" if path else attribute


def _as_list(patterns: Patterns) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else None if patterns is None else list(patterns)


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _check_kinds(kinds: str | Sequence[str]) -> list[str]:
    chosen = [kinds] if isinstance(kinds, str) else list(kinds)
    if not chosen:
        raise ValueError(f"kinds is empty: choose from {', '.join(KINDS)}")
    for kind in chosen:
        if kind not in KINDS:
            raise unknown("kind of weight", kind, KINDS)
    return chosen


def _check_patterns(
    model: nn.Module, candidates: list[_Candidate], includes: Sequence[str], excludes: Sequence[str]
) -> None:
    """An include must find a prunable weight; an exclude any parameter (leaving out what never was in is harmless)."""
    prunable = [name for candidate in candidates for name in sorted(candidate.spellings)]
    anything = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    anything |= {name.rpartition(".")[0] for name in anything} - {""}
    anything |= {plain_name(name) for name in anything} | set(prunable)
    for pattern in includes:
        if not _matches(pattern, prunable):
            raise ValueError(f"include={pattern!r} matches no prunable weight of the model{_hint(pattern, prunable)}")
    for pattern in excludes:
        if not _matches(pattern, anything):
            raise ValueError(f"exclude={pattern!r} matches no parameter of the model{_hint(pattern, anything)}")


def _hint(pattern: str, names: Iterable[str]) -> str:
    """What was probably meant: all that lies below a module, or the nearest name."""
    every = sorted(names)
    below = any(name.startswith(pattern + ".") for name in every)
    return f", did you mean {pattern + '.*'!r}?" if below else nearest(pattern, every)


def _check_plain(chosen: list[_Candidate]) -> None:
    for module, attribute, name in ((c.module, c.attribute, c.uses[0]) for c in chosen):
        parameter = module._parameters.get(attribute)
        if parameter is not None and is_lazy(parameter):
            raise ValueError(f"{name} is lazy and has no shape yet: run one batch through the model first")
        if parameter is not None:
            continue
        if parametrize.is_parametrized(module, attribute):
            way = "torch.nn.utils.parametrize.remove_parametrizations"
        elif f"{attribute}_orig" in module._parameters and f"{attribute}_mask" in module._buffers:
            way = "torch.nn.utils.prune.remove"
        else:
            owner = type(module).__name__
            raise ValueError(f"{name} is not a Parameter of its {owner}: leave it out with exclude={name!r}")
        raise ValueError(
            f"{name} is computed from other parameters at every use, so it cannot be zeroed: "
            f"make it plain with {way}(module, {attribute!r}), or leave it out with exclude={name!r}"
        )


def _check_ties(chosen: list[_Candidate], includes: Sequence[str]) -> None:
    tied = {c.uses: c for c in chosen if len(c.uses) > 1 and not c.spellings & set(includes)}
    if tied:
        # the last use is the one people know: the prediction layer comes after the embedding
        groups = "; ".join(f"{uses[-1]} is tied to {listed(uses[:-1])}" for uses in tied)
        names = [uses[-1] for uses in tied]
        one = repr(names[0]) if len(names) == 1 else repr(names)
        raise ValueError(
            f"{groups}. Pruning one prunes the other: leave it out with exclude={one}, "
            f"or prune all its uses by its exact name, include={['*', *names]!r}"
        )


def _nothing_found(model: nn.Module, kinds: list[str], every: list[_Candidate], candidates: list[_Candidate]) -> str:
    if candidates:
        return f"include and exclude leave none of the {len(candidates)} {' or '.join(kinds)} weights: widen them"
    if every:
        others = Counter(candidate.kind for candidate in every)
        has = ", ".join(f"{count} {kind}" for kind, count in others.items())
        return f"the model has no {' or '.join(kinds)} weight, but {has}: pass kinds={tuple(others)!r}"
    owners = Counter(type(module).__name__ for module in model.modules() if module._parameters)
    has = ", ".join(f"{count} {name}" for name, count in owners.items()) or "no module at all"
    return f"the model has no {' or '.join(kinds)} weight, its parameters are in {has}: give make_masks a mapping"
