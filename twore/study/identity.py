"""Identity: a result's place on disk is the hash of everything that may change it.

A key is the SHA-256 (first 20 hex digits) of canonical JSON. Of a dataclass all fields count, with its `kind` (or its
import path). A field that is added later must not move old results: declare it with `metadata={"since": "0.2"}` and it
counts only where it differs from its default. FORMAT changes when the code changes numbers for equal fields.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORMAT = 1
GAP = "\0"  # no JSON text has one
KEY_LENGTH = 20  # hex digits, 80 bits: no collision in any number of cells one could run


def key_of(what: str, value: Any) -> str:
    """The key of a value in the role `what` ("trajectory", "cell", ...)."""
    text = json.dumps({"format": FORMAT, "what": what, "value": canonical(value)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


class KeysOf:
    """key_of for many values in one role that differ in a few numbers; what they share is written out once.

    KeysOf("cell", {"lr": 1.0}, ("epoch", "ratio"))(2, 0.5) == key_of("cell", {"lr": 1.0, "epoch": 2, "ratio": 0.5})
    """

    def __init__(self, what: str, shared: Mapping[str, Any], names: tuple[str, ...]) -> None:
        texts = {name: json.dumps(canonical(v), sort_keys=True, allow_nan=False) for name, v in shared.items()}
        fields = ", ".join(f"{json.dumps(name)}: {texts.get(name, GAP)}" for name in sorted({*texts, *names}))
        self._pieces = f'{{"format": {FORMAT}, "value": {{{fields}}}, "what": {json.dumps(what)}}}'.split(GAP)
        self._order = [names.index(name) for name in sorted(names)]

    def __call__(self, *numbers: float) -> str:
        """The key; the numbers stand in the order of the names."""
        texts = [self._pieces[0]]
        for index, piece in zip(self._order, self._pieces[1:]):
            texts += (_text(numbers[index]), piece)
        return hashlib.sha256("".join(texts).encode()).hexdigest()[:KEY_LENGTH]


def canonical(value: Any) -> Any:
    """JSON-able form with one spelling for equal values: tuples are lists, and 40 in a field of floats is 40.0."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fields = {
            f.name: _as_declared(f, getattr(value, f.name)) for f in dataclasses.fields(value) if _counts(f, value)
        }
        return {"class": kind_of(cls), **{name: canonical(v) for name, v in fields.items()}}
    if isinstance(value, Mapping):
        return {str(name): canonical(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"a {type(value).__name__} cannot be part of a result's identity: use numbers, text, tuples and dataclasses"
    )


def _text(number: Any) -> str:
    """As json writes it; of an int or a float, the usual case, more quickly."""
    return repr(number) if type(number) in (int, float) else json.dumps(canonical(number))


def kind_of(cls: type) -> str:
    """The declared `kind` of a class, else its import path."""
    return getattr(cls, "kind", None) or f"{cls.__module__}:{cls.__qualname__}"


def _as_declared(field: dataclasses.Field, value: Any) -> Any:
    """40 in a field of floats is 40.0: the two are equal, so their keys must be."""
    declared = str(field.type if isinstance(field.type, str) else getattr(field.type, "__name__", field.type))
    is_float = "float" in declared and "int" not in declared
    return _floats(value) if is_float else value


def _floats(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _counts(field: dataclasses.Field, value: Any) -> bool:
    return "since" not in field.metadata or getattr(value, field.name) != field.default
