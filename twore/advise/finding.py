"""Finding checkpoints: what the user named -> checkpoints of one run, in the order of training.

A path may be a folder of `checkpoint-*` folders (the Hugging Face Trainer's) or the one above it, a folder of folders
with weights each, a folder of .pt, .pth, .ckpt, .bin or .safetensors files, one such folder, or one such file. Their
place in training is read from trainer_state.json, else from the numbers in their names ("checkpoint-900" comes before
"checkpoint-1000"), else it is their place in the natural order of the names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from twore.advise.one_run import refuse_interleaved, refuse_two_logs
from twore.advise.trainer_state import TrainerState, read_state
from twore.checkpoints import CheckpointError
from twore.pruning.choices import listed

FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
TRAINING = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args|random_states)[\w-]*\.(pt|pth|bin)$")
WEIGHTS = re.compile(r"(model|pytorch_model|adapter_model)([.-].*)?\.(safetensors|bin)(\.index\.json)?$")
NUMBER = re.compile(r"\d+")
STEP = re.compile(r"checkpoint-\d+")  # a folder of the Hugging Face Trainer
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Found:
    """One checkpoint of a run. `position` is its place on the time axis, the same unit for all (`Run.unit`)."""

    path: Path
    position: float
    step: int | None = None  # optimizer updates
    epoch: float | None = None  # passes over the data
    state: TrainerState | None = None


@dataclass(frozen=True)
class Run:
    """Checkpoints of one training run, in its order."""

    checkpoints: tuple[Found, ...]
    unit: str  # of positions: "epoch", "step", or "checkpoint" for 1, 2, 3, ...
    notes: tuple[str, ...] = ()  # a sentence each: what was left out, and why


def find_checkpoints(paths: Paths) -> Run:
    """The checkpoints that `paths` (one path, or several in any mix) hold.

    Raises FileNotFoundError for a path that is not there, CheckpointError (one sentence) when there is no checkpoint,
    only one, when two have the same place in training, or for two runs: by their logs, by folders that interleave, or
    by names that are numbered in two ways.
    """
    given = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    notes: list[str] = []
    places: list[Path] = []
    for path in given:
        places += [place for place in _within(path, notes) if place not in places]
    where = ", ".join(map(str, given)) or "nothing"
    if not places:
        raise CheckpointError(
            f"{where} holds no checkpoint: name a folder of checkpoint-* folders, or of {', '.join(FILES)} files"
        )
    found = [Found(place, 0.0, state=read_state(place) if place.is_dir() else None) for place in places]
    run = _placed(_stepped(_one_family(found, notes)), notes)
    refuse_two_logs(run.checkpoints)
    if len(run.checkpoints) == 1:
        raise CheckpointError(
            f"{where} holds one checkpoint only, {run.checkpoints[0].path.name}, so there is nothing to choose from: "
            "name two or more of one training run"
        )
    for a, b in zip(run.checkpoints, run.checkpoints[1:]):
        if a.position == b.position:
            raise CheckpointError(
                f"{a.path} and {b.path} are both of {run.unit} {a.position:g}: name each checkpoint of one run once"
            )
    refuse_interleaved(run.checkpoints)
    return run


def refuse_inside(paths: Paths, target: Path, what: str) -> None:
    """ValueError when `target` lies in one of the folders that were named: nothing is written there."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    for path in (Path(path).resolve() for path in given):
        if target.resolve() == path or (path.is_dir() and path in target.resolve().parents):
            raise ValueError(f"{what} {target} lies in {path}, where nothing is written: name another place")


def _within(path: Path, notes: list[str]) -> list[Path]:
    """The checkpoints of one path, in natural order; adds to `notes` what is passed over."""
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}: name a folder or files of this machine")
    if path.is_file():
        return [path]
    entries = sorted((e for e in path.iterdir() if not e.name.startswith(".")), key=lambda e: _natural(e.name))
    steps = [entry for entry in entries if entry.is_dir() and STEP.fullmatch(entry.name)]
    own = [entry for entry in entries if entry.is_file() and WEIGHTS.match(entry.name)]
    if steps:
        if own:
            notes.append(
                f"the model in {path} itself is left out: its step is not known; checkpoint-* folders are read"
            )
        return steps
    if own:
        return [path]
    files = [e for e in entries if e.is_file() and e.suffix in FILES and not TRAINING.match(e.name)]
    folders = [entry for entry in entries if entry.is_dir()]
    below = [entry for entry in folders if any(WEIGHTS.match(e.name) for e in entry.iterdir())]
    runs = [entry for entry in folders if any(STEP.fullmatch(e.name) for e in entry.iterdir())]
    if len(runs) > 1 and not files:
        raise CheckpointError(
            f"{path} holds {len(runs)} runs ({listed((run.name for run in runs), 3)}), and advice is on one of them: "
            f"name it, such as {runs[0]}"
        )
    if runs and not files and set(below) <= set(runs):
        return _within(runs[0], notes)
    return files or below


def _one_family(found: list[Found], notes: list[str]) -> list[Found]:
    """Those whose names differ in numbers alone, the most there are; others have no place among them. CheckpointError
    where there are two such rows, which is two runs."""
    families: dict[str, list[Found]] = {}
    for one in found:
        families.setdefault("step known" if one.state else NUMBER.sub("#", one.path.name), []).append(one)
    numbered = {name: ones for name, ones in families.items() if "#" in name or name == "step known"}
    if not numbered:
        return found
    name = max(numbered, key=lambda name: (len(numbered[name]), name == "step known", -len(name)))
    second = next((key for key in numbered if key != name and len(numbered[key]) > 1), None)
    if second is not None:
        a, b = (numbered[key][0].path for key in (name, second))
        raise CheckpointError(
            f"{a} and {b} seem to be of two runs, since both names are numbered: name the checkpoints of one run"
        )
    others = [one.path.name for key, ones in families.items() if key != name for one in ones]
    if others:
        notes.append(f"left out, since their names do not say where they belong among the others: {listed(others, 3)}")
    return numbered[name]


def _stepped(found: list[Found]) -> list[Found]:
    """With step and epoch, as far as the Trainer or the names say."""
    numbers = [[int(n) for n in NUMBER.findall(one.path.name)] for one in found]
    varying = [i for i in range(len(numbers[0])) if len({n[i] for n in numbers}) > 1] if numbers[0] else []
    words = [word.lower() for word in NUMBER.split(found[0].path.name)[:-1]]  # what stands before each number
    epochs = [i for i in varying if re.search(r"(?<![a-z])(epochs?|ep|e)[^a-z]*$", words[i])]
    steps = [
        i
        for i in varying
        if re.search(r"(?<![a-z])(steps?|iter|iterations?|updates?|checkpoint|ckpt|it|s)[^a-z]*$", words[i])
    ]
    rest = [i for i in varying if i not in epochs + steps]
    if not epochs and not steps and len(rest) == 1:
        steps = rest
    placed = []
    for one, values in zip(found, numbers):
        if one.state is not None:
            placed.append(replace(one, step=one.state.step, epoch=one.state.epoch))
        else:
            placed.append(replace(
                one, step=values[steps[0]] if steps else None, epoch=float(values[epochs[0]]) if epochs else None
            ))  # fmt: skip
    return placed


def _placed(found: list[Found], notes: list[str]) -> Run:
    """On one axis: epochs where all know them and they differ, else steps, else the order of the names."""
    for unit in ("epoch", "step"):
        values = [getattr(one, unit) for one in found]
        if all(value is not None for value in values) and (unit == "step" or len(set(values)) == len(values)):
            placed = [replace(one, position=float(value)) for one, value in zip(found, values)]
            return Run(tuple(sorted(placed, key=lambda one: one.position)), unit, tuple(notes))
    ordered = sorted(found, key=lambda one: _natural(one.path.name))
    placed = [replace(one, position=float(number)) for number, one in enumerate(ordered, 1)]
    if len(found) > 1:
        notes.append("neither trainer_state.json nor the names say steps: the order is that of the names")
    return Run(tuple(placed), "checkpoint", tuple(notes))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]
