"""Studies as text: study.yaml, and a command-line flag for every field, from the same dataclasses.

Precedence: preset, then --config file, then flags. Errors are one sentence; an unknown name says what is near.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from twore.files import write_text
from twore.pruning.spec import Pruning
from twore.study.identity import kind_of
from twore.study.specs import Study
from twore.tasks import TASKS
from twore.training import Numerics, Training

GROUPS: dict[str, type] = {"dense": Training, "finetune": Training, "pruning": Pruning, "numerics": Numerics}

SCORE_LABEL = "score_label"  # written for the report, which knows no task; not read back

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class ConfigError(ValueError):
    """A study was asked for in words that do not fit."""


def add_study_arguments(parser: ArgumentParser, task: type) -> None:
    """Add every field of a Study whose task is of class `task`."""
    parser.add_class_arguments(task, "task", as_group=True)
    for name, cls in GROUPS.items():
        parser.add_class_arguments(cls, name, as_group=True)
    parser.add_class_arguments(Study, None, skip={"task", *GROUPS}, as_group=True)


def study_from(values: Mapping[str, Any] | Namespace, task: type) -> Study:
    """The Study of parsed or loaded values (nested by group). ConfigError in one sentence."""
    nested = values.as_dict() if isinstance(values, Namespace) else dict(values)
    try:
        parts: dict[str, Any] = {"task": task(**_tuples(nested.get("task", {})))}
        for name, cls in GROUPS.items():
            parts[name] = cls(**_tuples(nested.get(name, {})))
        own = {field.name for field in dataclasses.fields(Study)} - set(parts)
        return Study(**parts, **_tuples({name: nested[name] for name in own if name in nested}))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def study_values(study: Study) -> dict[str, Any]:
    """The study as nested plain values, as they stand in study.yaml (without the task's kind)."""
    return _plain(study)


def flat_values(study: Study) -> dict[str, Any]:
    """The study's fields by dotted name: defaults for a parser."""
    flat: dict[str, Any] = {}
    for name, value in study_values(study).items():
        if name in ("task", *GROUPS):
            flat |= {f"{name}.{field}": v for field, v in value.items()}
        else:
            flat[name] = value
    return flat


def dump_study(study: Study) -> str:
    """The study as YAML text."""
    values = study_values(study)
    values["task"] = {"kind": kind_of(type(study.task)), **values["task"]}
    ordered = {"name": values.pop("name"), "task": values.pop("task"), **values, SCORE_LABEL: study.task.score_label}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def save_study(study: Study, path: Path) -> None:
    """Write the study as YAML."""
    write_text(path, dump_study(study))


def load_study(path: Path) -> Study:
    """Read a study written by save_study, or by hand. ConfigError in one sentence for anything that does not fit."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"there is no study file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{path} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict) or not isinstance(values.get("task"), dict) or "kind" not in values["task"]:
        raise ConfigError(f"{path} is not a study: it needs a task with its kind ({', '.join(TASKS)}, or module:Class)")
    values.pop(SCORE_LABEL, None)
    task = task_class(values["task"].pop("kind"))
    parser = ArgumentParser(exit_on_error=False)
    add_study_arguments(parser, task)
    parser.set_defaults(flat_values(Study(task=task())))
    try:
        return study_from(parser.parse_object(values), task)
    except (argparse.ArgumentError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: {one_sentence(error)}") from error


def task_class(kind: str) -> type:
    """The task class of a name in TASKS, or of an import path module:Class."""
    if kind in TASKS:
        return TASKS[kind]
    module, _, name = kind.partition(":")
    if not name:
        close = difflib.get_close_matches(kind, TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(TASKS)}, or write module:Class"
        raise ConfigError(f"there is no task {kind!r}: {hint}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        hint = ": a task of a script must be in a module of its own" if module == "__main__" else f": {error}"
        raise ConfigError(f"the task {kind} cannot be imported{hint}") from error


def one_sentence(error: BaseException) -> str:
    """An error's text, cut to what fits in one line."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    words = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])  # "Parser key x:" needs its reason
    return words or type(error).__name__


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
