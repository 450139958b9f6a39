"""From the command line's words to what `advise` takes: a task with its fields, fine-tuning, numerics.

Fields are written as in a study file: --task.width 64 --finetune.epochs 2 --numerics.device cpu.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from twore.advise.batches import BATCHES, TaskProbe
from twore.data import data_folder
from twore.study.config import ConfigError, one_sentence, task_class
from twore.training import Numerics

PRECISION = {"precision": "float32"}  # `auto` would measure training, and nothing may be trained


def probe_from(options: argparse.Namespace) -> TaskProbe | None:
    """The probe of --task and its fields; None without --task. ConfigError in one sentence."""
    if options.task is None:
        if options.fields or options.batches is not None:
            flag = options.fields[0].split("=")[0] if options.fields else "--batches"
            raise ConfigError(f"{flag} needs a task to score pruned checkpoints with: add --task module:Class")
        return None
    if "" not in sys.path:
        sys.path.insert(0, "")  # a task may be in a module of the current folder
    cls = task_class(options.task)
    values = field_values({"task": cls, "numerics": Numerics}, [f for f in options.fields if "finetune" not in f])
    folder = data_folder(options.data)
    numerics = Numerics(**PRECISION | values["numerics"])
    return TaskProbe(cls(**values["task"]), folder, options.batches or BATCHES, numerics)


def field_values(classes: dict[str, type], flags: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The fields that flags like "--task.width=64" set, by group. ConfigError for what does not fit."""
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    for name, cls in classes.items():
        parser.add_class_arguments(cls, name, as_group=True)
    try:
        parsed = parser.parse_args(list(flags)).as_dict()
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(error)) from error
    given = {flag.removeprefix("--").split("=")[0] for flag in flags}
    return {
        name: {
            field: tuple(value) if isinstance(value, list) else value
            for field, value in (parsed.get(name) or {}).items()
            if f"{name}.{field}" in given
        }
        for name in classes
    }
