"""Joining the stores of shards that ran without a shared disk: `twore merge DIR... --out OUT`.

Every record and file is verified by its checksum before anything is written. Results that several folders hold must be
equal apart from provenance (host, time, speed): then the first is kept. If numbers differ, nothing is merged. The
inputs are only read; running the same merge again is free, and OUT may already hold the same study.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import safe_open

from twore.files import CorruptFileError, read_record, read_tensors, write_bytes
from twore.pruning import load_masks
from twore.study.config import ConfigError, flat_values, load_study, save_study
from twore.study.create import STUDY_FILE, check_writable
from twore.study.dense import dense_run_done
from twore.study.schedule import Job
from twore.study.specs import Study
from twore.study.stages import group_done
from twore.study.status import read_status
from twore.study.store import Store
from twore.study.tables import read_results

RESULTS = ("trajectories", "checkpoints", "probes", "cells", "pairs")  # kinds of records that are results
PASSING = ("provenance", "rate", "source")  # parts of a record that say where and how fast, not what
CHECKPOINTS, DATA, WEIGHTS, MASKS = (
    "trajectories/*/*.safetensors", "trajectories/*/data.json", "weights/*.safetensors", "masks/*.safetensors"
)  # fmt: skip

log = logging.getLogger("twore")


@dataclass(frozen=True)
class Merged:
    """What a merge did."""

    study: Study
    copied: int  # files
    cells: int  # in the merged store
    missing: int  # cells that no folder has
    broken: list[str] = field(default_factory=list)  # damaged files that were left out


@dataclass(frozen=True)
class _Found:
    """A verified file, and what its contents are when two are compared."""

    path: Path
    contents: str


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Join the run folders into `out` and write its tables.

    ConfigError in one sentence for folders that hold no study or different ones, for an `out` among them, and for a
    result that two folders have with different numbers.
    """
    if not folders:
        raise ConfigError("merge needs at least one run folder")
    place = out.resolve()
    if any(folder.resolve() in (place, *place.parents) for folder in folders):
        raise ConfigError(f"--out {out} lies in a folder to merge, which is only read: name another folder")
    present = [out] if (out / STUDY_FILE).exists() else []
    study = _same_study([*present, *folders])
    check_writable(out)
    broken: list[str] = []
    chosen: dict[str, _Found] = {}  # place in the store -> the file to have there
    for folder in [*present, *folders]:
        for where, found in _verified(Store(folder), broken, keep_weights=study.keep_weights):
            if where not in chosen:
                chosen[where] = found
            elif chosen[where].contents != found.contents:
                raise ConfigError(_conflict(where, chosen[where].path, found.path))
    store, copied = Store(out), 0
    for where, found in chosen.items():
        if found.path != store.root / where:
            write_bytes(store.root / where, found.path.read_bytes())
            copied += 1
    _merge_failures(study, store, folders)
    save_study(study, out / STUDY_FILE)
    read_results(study, store).write(out)
    cells = read_status(out).cells
    return Merged(study, copied, cells.done, cells.total - cells.done, broken)


def _same_study(folders: Sequence[Path]) -> Study:
    """The first folder's study; ConfigError unless all are equal apart from the name."""
    first, *others = [load_study(folder / STUDY_FILE) for folder in folders]
    values = flat_values(first)
    for folder, other in zip(folders[1:], others):
        theirs = flat_values(other)
        different = [f"{name} {values.get(name)} and {theirs.get(name)}" for name in dict.fromkeys([*values, *theirs])
                     if name != "name" and values.get(name) != theirs.get(name)]  # fmt: skip
        if type(first.task) is not type(other.task):
            different = ["task"]
        if different:
            raise ConfigError(
                f"{folders[0]} and {folder} hold different studies ({', '.join(different)}): "
                "merge shards of one study, all run with the same flags"
            )
    return first


def _verified(store: Store, broken: list[str], *, keep_weights: bool) -> Iterator[tuple[str, _Found]]:
    """Every intact result of a store, by its place; damaged ones are said, left out, and listed in `broken`."""
    for path, read in _result_files(store, keep_weights=keep_weights):
        try:
            contents = read(path)
        except CorruptFileError as error:
            log.warning("%s: left out, to be computed again", error)
            broken.append(str(path))
            continue
        yield path.relative_to(store.root).as_posix(), _Found(path, contents)


def _result_files(store: Store, *, keep_weights: bool) -> Iterator[tuple[Path, Callable[[Path], str]]]:
    """The files of a store that are results, and how to verify each kind. Work in flight is none."""
    for kind in RESULTS:
        yield from ((store.path(kind, key), _record_in) for key in sorted(store.keys(kind)))
    patterns = {DATA: _record_in, CHECKPOINTS: _tensors_in}
    if keep_weights:  # otherwise they belong to groups in flight
        patterns |= {WEIGHTS: _tensors_in, MASKS: _masks_in}
    for pattern, read in patterns.items():
        yield from ((path, read) for path in sorted(store.root.glob(pattern)) if not path.name.startswith("."))


def _record_in(path: Path) -> str:
    return json.dumps(_lasting(read_record(path)), sort_keys=True)


def _tensors_in(path: Path) -> str:
    read_tensors(path)  # proves that the digest in the header is the contents'
    with safe_open(path, framework="pt") as stream:
        return json.dumps(stream.metadata(), sort_keys=True)


def _masks_in(path: Path) -> str:
    try:
        load_masks(path)
    except ValueError as error:
        raise CorruptFileError(str(error)) from error
    return sha256(path.read_bytes()).hexdigest()


def _merge_failures(study: Study, store: Store, folders: Sequence[Path]) -> None:
    """Take over the failures of jobs that no folder finished, and forget those of jobs that one did."""
    failed = {key: Store(folder) for folder in reversed(folders) for key in Store(folder).keys("failures")}
    before = store.keys("failures")
    if not failed and not before:
        return
    for trajectory in study.trajectories:
        for job in (Job(trajectory), *(Job(trajectory, group) for group in trajectory.groups())):
            if job.key not in failed and job.key not in before:
                continue
            done = dense_run_done(store, trajectory) if job.group is None else group_done(store, job.group)
            if done:
                store.drop("failures", job.key)
            elif job.key not in before:
                write_bytes(store.path("failures", job.key), failed[job.key].path("failures", job.key).read_bytes())


def _lasting(value: Any) -> Any:
    """A record without what may differ between equal results."""
    if isinstance(value, dict):
        return {name: _lasting(v) for name, v in value.items() if name not in PASSING}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def _conflict(place: str, first: Path, second: Path) -> str:
    """One sentence that names the result and, where it has one, both scores."""
    scores = ""
    if place.startswith("cells"):
        scores = f" (score {read_record(first).get('score')} and {read_record(second).get('score')})"
    kind, _, name = place.partition("/")
    return (
        f"{first} and {second} hold different numbers for {kind} {Path(name).name.removesuffix('.json')}{scores}: the "
        "machines did not compute alike, so remove one of the two stores and merge the rest"
    )
