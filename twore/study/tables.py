"""The tables of a study, read from the store: a tidy row a cell, a checkpoint, a pair of seeds, an epoch, a failure.

Rows stand in the order of the plan, so the same results give the same file, byte for byte apart from PROVENANCE.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from twore.files import CorruptFileError, read_record, written
from twore.study.schedule import Job
from twore.study.specs import Study, Trajectory
from twore.study.store import Store, set_aside

SAMPLES = "samples"  # in records: texts for people, kept out of the tables of numbers
LOST = [{"input": "", "reference": ""}] * 1000  # more samples than any task keeps
PROVENANCE = ("host", "seconds", "finished_at", "commit")
TABLES = {
    "cells": "results.csv",
    "checkpoints": "checkpoints.csv",
    "probes": "probes.csv",
    "pairs": "pairs.csv",
    "curves": "curves.csv",
    "samples": "samples.csv",
    "failures": "failures.csv",
}
OPTIONAL = ("probes", "samples", "failures")  # written only when they have rows


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of a study as DataFrames."""

    cells: pd.DataFrame
    checkpoints: pd.DataFrame
    probes: pd.DataFrame
    pairs: pd.DataFrame
    curves: pd.DataFrame
    samples: pd.DataFrame
    failures: pd.DataFrame

    def write(self, out: Path) -> None:
        """Write each table to its file under `out`; failures.csv only when something failed, samples.csv where the
        task keeps samples."""
        for field in fields(self):
            table: pd.DataFrame = getattr(self, field.name)
            path = out / TABLES[field.name]
            if field.name in OPTIONAL and table.empty:
                path.unlink(missing_ok=True)
            else:
                with written(path) as stream:
                    table.to_csv(stream, index=False, lineterminator="\n")


def read_results(study: Study, store: Store) -> Results:
    """All results of the study that exist."""
    setting = ["setting", *study.columns, "dense_seed"]
    return Results(
        cells=_table(
            _cells(study, store),
            [*setting, "epoch", "ratio", "density", "finetune_seed", "valid_score", "score"],
            ["train_loss", "revived", "key"],
        ),
        checkpoints=_table(
            _checkpoints(study, store),
            [*setting, "epoch", "update", "lr", "train_loss", "valid_score", "score", "pruned"],
            ["key"],
        ),
        probes=_table(_probes(study, store), [*setting, "epoch", "ratio"], ["key"]),
        pairs=_table(
            _pairs(study, store), [*setting, "epoch", "ratio", "pair", "model_similarity", "agreement"], ["key"]
        ),
        curves=_table(
            _curves(study, store),
            [*setting, "epoch", "update", "lr", "train_loss", "valid_score", "score"],
            [],
            provenance=(),
        ),
        samples=_table(
            _samples(study, store),
            [*setting, "epoch", "ratio", "finetune_seed", "sample", "input", "reference", "output"],
            ["key"],
            provenance=(),
        ),
        failures=_table(
            _failures(study, store), ["job", "key", "reason", "attempts", "host", "finished_at"], [], provenance=()
        ),
    )


def _table(
    rows: Iterable[dict[str, Any]], first: list[str], last: list[str], provenance: Iterable[str] = PROVENANCE
) -> pd.DataFrame:
    """One table of rows that come one by one: each is taken apart at once, and equal texts are kept once, so that
    100,000 rows need little more memory than their table."""
    columns: dict[str, list[Any]] = {}
    texts: dict[str, str] = {}
    count = 0
    for count, row in enumerate(rows, 1):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([math.nan] * (count - 1 - len(column)))  # rows before that had no such column
            column.append(texts.setdefault(value, value) if isinstance(value, str) else value)
    tail = [*last, *provenance]
    middle = [name for name in columns if name not in {*first, *tail}]
    for column in columns.values():
        column.extend([math.nan] * (count - len(column)))
    empty = [math.nan] * count
    dtype = None if count else object
    return pd.DataFrame({name: columns.pop(name, empty) for name in [*first, *middle, *tail]}, dtype=dtype)


def _cells(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    for trajectory in study.trajectories:
        for group in trajectory.groups():
            for seed, key in group.cell_keys.items():
                record = store.get("cells", key)
                if record is not None:
                    place = {"epoch": group.epoch, "ratio": group.ratio, "finetune_seed": seed, "key": key}
                    yield _setting(trajectory) | place | _flat(record)


def _probes(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    for trajectory in study.trajectories:
        for group in trajectory.groups():
            record = store.get("probes", group.probe_key) if study.probe_batches else None
            if record is not None:
                place = {"epoch": group.epoch, "ratio": group.ratio, "key": group.probe_key}
                yield _setting(trajectory) | place | _flat(record)


def _pairs(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    for trajectory in study.trajectories:
        for group in trajectory.groups():
            record = store.get("pairs", group.pairs_key) if group.pairs else None
            if record is None:
                continue
            for row in record["rows"]:
                place = {"epoch": group.epoch, "ratio": group.ratio, "key": group.pairs_key}
                yield _setting(trajectory) | place | row | record["provenance"]


def _checkpoints(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    for trajectory in study.trajectories:
        epochs = _epochs(store, trajectory)
        for epoch in trajectory.epochs:
            key = trajectory.checkpoint_key(epoch)
            record = store.get("checkpoints", key)
            if record is not None:
                place = {"epoch": epoch, "pruned": epoch in trajectory.study.checkpoints, "key": key}
                yield _setting(trajectory) | place | epochs.get(epoch, {}) | _flat(record)


def _curves(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    for trajectory in study.trajectories:
        for row in _epochs(store, trajectory).values():
            yield _setting(trajectory) | row


def _samples(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    """What the models said: of each dense checkpoint (its ratio and fine-tune seed empty) and of each cell."""
    for trajectory in study.trajectories:
        dense = store.get("trajectories", trajectory.key) or {"epochs": ()}
        kept = set(trajectory.epochs)
        epochs = [row for row in dense["epochs"] if SAMPLES in row["scores"] and row["epoch"] in kept]
        if not epochs:
            continue
        asked = _asked(store, trajectory)
        for row in epochs:
            place = _setting(trajectory) | {"epoch": row["epoch"], "key": trajectory.key}
            yield from _each_sample(place, asked, row["scores"][SAMPLES])
        for group in trajectory.groups():
            for seed, key in group.cell_keys.items():
                place = _setting(trajectory) | {"epoch": group.epoch, "ratio": group.ratio, "key": key}
                record = store.get("cells", key) or {}
                yield from _each_sample(place | {"finetune_seed": seed}, asked, record.get(SAMPLES, ()))


def _asked(store: Store, trajectory: Trajectory) -> list[dict[str, str]]:
    """The inputs of the samples with their references; empty texts where the record of the data is lost."""
    path = store.data_record(trajectory.key)
    try:
        return read_record(path)[SAMPLES]
    except FileNotFoundError:
        return LOST
    except CorruptFileError as error:
        set_aside(path, error)
        return LOST


def _each_sample(place: dict[str, Any], asked: list[dict[str, str]], said: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, (sample, output) in enumerate(zip(asked, said)):
        yield place | {"sample": number, **sample, "output": output}


def _failures(study: Study, store: Store) -> Iterator[dict[str, Any]]:
    failed = store.keys("failures")
    seen: set[str] = set()
    for trajectory in study.trajectories if failed else ():
        for job in (Job(trajectory), *(Job(trajectory, group) for group in trajectory.groups())):
            record = store.get("failures", job.key) if job.key in failed and job.key not in seen else None
            seen.add(job.key)
            if record is not None:
                yield {"job": job.words, "key": job.key, **_flat(record)}


def _epochs(store: Store, trajectory: Trajectory) -> dict[int, dict[str, Any]]:
    record = store.get("trajectories", trajectory.key)
    if record is None:
        return {}
    start = {"epoch": 0, "update": 0, **record["initial"]}
    rows = [_numbers(row, "scores", "rate") | _numbers(row["scores"], SAMPLES) for row in record["epochs"]]
    return {row["epoch"]: row for row in [start, *rows]}


def _setting(trajectory: Trajectory) -> dict[str, Any]:
    return {"setting": trajectory.setting, **trajectory.columns, "dense_seed": trajectory.seed}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    return _numbers(record, "provenance", SAMPLES) | record["provenance"]


def _numbers(record: dict[str, Any], *without: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in without}
