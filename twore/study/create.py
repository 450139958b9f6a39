"""Creating and reopening a study's folder: what `auto` means is settled once, written to study.yaml, and kept."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from twore.seeds import seed_everything
from twore.study.config import ConfigError, load_study, save_study, study_values
from twore.study.specs import Study
from twore.study.stack_width import fastest_width
from twore.study.trial import FirstBatches
from twore.tasks.base import Task, TaskData
from twore.training import Numerics, Run, train
from twore.training.numerics import fastest, resolve, use_threads

STUDY_FILE = "study.yaml"
AXES = (
    "name",
    "checkpoints",
    "extra_checkpoints",
    "ratios",
    "dense_seeds",
    "finetune_seeds",
    "settings",
    "probe_batches",
    "landscape",
    "keep_weights",
)
TRIAL_BATCHES = 8  # updates behind the choice of precision; our choice: a second or two on a laptop


def open_study(study: Study, out: Path, data: Path | None) -> Study:
    """The study as it will run in `out`, with every `auto` resolved; writes study.yaml.

    An existing folder of the same study is reopened with what was resolved then. Its axes may grow or shrink (results
    are kept by identity, none is lost); any other difference is a ConfigError that names it.
    """
    check_writable(out)
    path = out / STUDY_FILE
    if path.exists():
        before = load_study(path)
        fingerprint = before.data_fingerprint if study.data_fingerprint == "auto" else study.data_fingerprint
        study = replace(study, numerics=_filled(study.numerics, before.numerics), data_fingerprint=fingerprint)
        _refuse_differences(before, study, out)
    study = _resolved(study, data)
    save_study(study, path)
    return study


def check_writable(out: Path) -> None:
    """ConfigError when results cannot be written under `out`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"--out {out} is a file, or lies under one: name a folder") from error
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be written ({os.strerror(error.errno or 0)}): name another folder"
        ) from error


def _resolved(study: Study, data: Path | None) -> Study:
    """The study without `auto`; touches data only when something is left to settle."""
    unsettled = "auto" in (study.numerics.device, study.numerics.precision, study.data_fingerprint)
    if not unsettled and study.numerics.stack:
        return replace(study, numerics=resolve(study.numerics))
    device = resolve(replace(study.numerics, precision="float32")).device
    loaded = study.task.load(data, torch.device(device))
    numerics = resolve(study.numerics, lambda trial: trial_seconds(study, loaded, trial))
    if numerics.stack == 0:

        def load(task: Task) -> TaskData:
            return loaded if task == study.task else task.load(data, torch.device(device))

        numerics = replace(numerics, stack=fastest_width(study, numerics, load))
    fingerprint = loaded.fingerprint if study.data_fingerprint == "auto" else study.data_fingerprint
    return replace(study, numerics=numerics, data_fingerprint=fingerprint)


def _filled(asked: Numerics, before: Numerics) -> Numerics:
    device = before.device if asked.device == "auto" else asked.device
    precision = before.precision if asked.precision == "auto" else asked.precision
    return replace(asked, device=device, precision=precision, stack=asked.stack or before.stack)


def _refuse_differences(before: Study, now: Study, out: Path) -> None:
    old, new = study_values(before), study_values(now)
    different = [] if type(before.task) is type(now.task) else ["task"]
    for name in new:
        if name not in AXES and old[name] != new[name] and not (name == "task" and different):
            different.extend(_paths(name, old[name], new[name]))
    if different:
        raise ConfigError(f"{out} holds another study (it differs in {', '.join(different)}): name another --out")


def _paths(name: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [f"{name}.{key} {old.get(key)} -> {new[key]}" for key in new if old.get(key) not in ("auto", new[key])]
    return [] if old == "auto" else [f"{name} {old} -> {new}"]


def trial_seconds(study: Study, data: TaskData, numerics: Numerics) -> float:
    """Seconds of a few fine-tuning updates with these numerics."""
    threads = torch.get_num_threads()
    use_threads(numerics.threads)
    seed_everything(0)
    model = study.task.build().to(numerics.device)
    trial = FirstBatches(data, TRIAL_BATCHES)
    try:
        still = replace(study.finetune, epochs=1, lr=0.0)  # nothing moves, so nothing can diverge
        run = Run(model, trial, still, "trial", 0, numerics)
        return fastest(lambda: train(run))
    finally:
        torch.set_num_threads(threads)
