"""From the command line's words to what `advise` takes: layers, a task with its fields, fine-tuning, numerics.

Fields are written as in a study file: --task.width 64 --finetune.epochs 2 --numerics.device cpu; a study file itself,
or one with some of its groups, can be given with --config. Flags win over the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from twore.advise.batches import BATCHES, TaskProbe
from twore.advise.pilot import Pilot
from twore.checkpoints import LayerChoice
from twore.data import data_folder
from twore.study.config import GROUPS, ConfigError, one_sentence, task_class
from twore.study.executors import EXECUTORS
from twore.training import Numerics, Training

PRECISION = {"precision": "float32"}  # `auto` would measure training, and nothing may be trained


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    layers: LayerChoice
    probe: TaskProbe | None
    pilot: Pilot | None


def asked_from(options: argparse.Namespace) -> Asked:
    """The command's options as values. ConfigError (one sentence) for what does not fit, or does not fit together."""
    file = _read_config(options.config) if options.config else {}
    task = options.task or file.get("task", {}).pop("kind", None)
    file.get("task", {}).pop("kind", None)
    pilot = options.pilot is not None
    if task is None:
        extra = [flag.split("=")[0] for flag in options.fields]
        extra += ["--batches"] * (options.batches is not None) + ["--pilot"] * pilot
        if extra:
            raise ConfigError(f"{extra[0]} needs a task to score pruned checkpoints with: add --task module:Class")
        return Asked(_layers(options, file), None, None)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a task may be in a module of the current folder
    cls = task_class(task)
    values = _fields({"task": cls, "finetune": Training, "numerics": Numerics}, options.fields, file)
    try:
        numerics = Numerics(**PRECISION | values["numerics"])
        probe = TaskProbe(cls(**values["task"]), data_folder(options.data), options.batches or BATCHES, numerics)
        return Asked(_layers(options, file), probe, _pilot(options, values["finetune"]) if pilot else None)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _pilot(options: argparse.Namespace, finetune: dict[str, Any]) -> Pilot:
    if not finetune:
        raise ConfigError(
            "--pilot fine-tunes, so say how: --finetune.epochs 2 --finetune.lr 0.01 ..., or --config STUDY.yaml"
        )
    if options.executor not in EXECUTORS:
        raise ConfigError(f"--executor is one of {', '.join(EXECUTORS)}: got {options.executor!r}")
    if options.workers < 1:
        raise ConfigError(f"--workers is at least 1: got {options.workers}")
    constant = {"schedule": "constant", "drops": ()} if "schedule" not in finetune else {}
    training = Training(**constant | finetune)
    return Pilot(training, options.pilot, options.out, options.workers, options.executor)


def _layers(options: argparse.Namespace, file: dict[str, Any]) -> LayerChoice:
    pruning = file.get("pruning", {})
    return LayerChoice(
        tuple(options.kinds or pruning.get("kinds") or ("conv", "linear")),
        options.include or tuple(pruning.get("include") or ()) or None,
        options.exclude or tuple(pruning.get("exclude") or ()) or None,
        "skip", options.layers,
    )  # fmt: skip


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no fields: it needs some of task, {', '.join(GROUPS)}, as a study file")
    return {name: dict(value) for name, value in values.items() if name in ("task", *GROUPS) and value}


def _fields(classes: dict[str, type], flags: Sequence[str], file: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields that a file and flags like "--task.width=64" set, by group."""
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    for name, cls in classes.items():
        parser.add_class_arguments(cls, name, as_group=True)
    written = [
        f"--{name}.{field}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"
        for name in classes
        for field, value in file.get(name, {}).items()
    ]
    try:
        parsed = parser.parse_args([*written, *flags]).as_dict()
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(error)) from error
    given = {flag.removeprefix("--").split("=")[0] for flag in [*written, *flags]}
    return {
        name: {
            field: tuple(value) if isinstance(value, list) else value
            for field, value in (parsed.get(name) or {}).items()
            if f"{name}.{field}" in given
        }
        for name in classes
    }
