"""The store: one record a result, found by its key; a result appears whole or not at all.

Under `<out>/store/`, all names are made here:
    trajectories/<key>.json            a finished dense run
    checkpoints/<kk>/<key>.json        metrics of a checkpoint
    probes/<kk>/<key>.json             a pruned checkpoint before fine-tuning
    cells/<kk>/<key>.json              a fine-tuned cell
    pairs/<kk>/<key>.json              pair metrics of a group
    trajectories/<key>/epoch-0004.safetensors, state.safetensors, data.json
    weights/<key>.safetensors          fine-tuned weights, until the group's pairs are done
    masks/<key>.safetensors            bit-packed masks, beside kept weights
    failures/<key>.json                what went wrong, until it goes right
    running/<key>.json                 where a running job is
    claims/<key>/                      which process does a job (twore.study.claims)
A truncated or altered file is found by its checksum, set aside as *.corrupt, said, and computed again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twore.files import CorruptFileError, read_record, write_record

KINDS = ("trajectories", "checkpoints", "probes", "cells", "pairs", "failures", "running")
SHARDED = ("checkpoints", "probes", "cells", "pairs")  # kinds with many files: one folder for each first two digits

CHECKPOINT = re.compile(r"epoch-(\d+)\.safetensors")

log = logging.getLogger("twore")


class Store:
    """Results on disk, by kind and key. Safe for several writers: equal keys mean equal contents."""

    def __init__(self, out: Path) -> None:
        self.root = Path(out) / "store"
        self.damaged = 0  # records that `get` found broken and set aside

    def path(self, kind: str, key: str) -> Path:
        """Where the record of `key` lies."""
        if kind not in KINDS:
            raise ValueError(f"a store keeps {', '.join(KINDS)}: got {kind!r}")
        return self.root / kind / key[:2] / f"{key}.json" if kind in SHARDED else self.root / kind / f"{key}.json"

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record, or None when there is none (yet, or no longer intact)."""
        path = self.path(kind, key)
        try:
            return read_record(path)
        except FileNotFoundError:
            return None
        except CorruptFileError as error:
            self.damaged += 1
            set_aside(path, error)
            return None

    def put(self, kind: str, key: str, record: Mapping[str, Any]) -> None:
        """Write the record: the one write that makes a stage done."""
        write_record(self.path(kind, key), record)

    def drop(self, kind: str, key: str) -> None:
        """Forget a record, if there is one."""
        self.path(kind, key).unlink(missing_ok=True)

    def keys(self, kind: str) -> set[str]:
        """All keys of a kind, by listing folders (contents are not read)."""
        root = self.root / kind
        folders = [root / name for name in _names(root)] if kind in SHARDED else [root]
        names = (name for folder in folders for name in _names(folder))
        return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}

    def checkpoints(self, trajectory: str) -> set[int]:
        """Epochs of a dense run whose weights are there, by listing its folder."""
        names = _names(self.root / "trajectories" / trajectory)
        return {int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name))}

    def checkpoint(self, trajectory: str, epoch: int) -> Path:
        """Weights of a dense run after `epoch` epochs."""
        return self.root / "trajectories" / trajectory / f"epoch-{epoch:04d}.safetensors"

    def average(self, trajectory: str, epoch: int) -> Path:
        """Moving average of the weights, beside a checkpoint."""
        return self.root / "trajectories" / trajectory / f"epoch-{epoch:04d}.average.safetensors"

    def run_state(self, key: str) -> Path:
        """Resumable state of an unfinished run (dense or fine-tuning)."""
        return self.root / "running" / f"{key}.safetensors"

    def data_record(self, trajectory: str) -> Path:
        """What data a dense run saw: source, counts, indices."""
        return self.root / "trajectories" / trajectory / "data.json"

    def weights(self, cell: str) -> Path:
        """Fine-tuned weights of a cell."""
        return self.root / "weights" / f"{cell}.safetensors"

    def masks(self, cell: str) -> Path:
        """Masks of a cell, bit-packed."""
        return self.root / "masks" / f"{cell}.safetensors"

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.root / "claims"

    def sweep(self) -> None:
        """Remove what killed processes left half-written. Only while no other process works here."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.startswith(".") and name.endswith(".tmp"):
                    Path(folder, name).unlink(missing_ok=True)
        for key in self.keys("running"):
            self.drop("running", key)

    def running(self) -> Iterator[dict[str, Any]]:
        """Progress records of jobs that run (or died running)."""
        for key in sorted(self.keys("running")):
            record = self.get("running", key)
            if record is not None:
                yield record


def set_aside(path: Path, error: Exception) -> None:
    """Move a broken file out of the way, and say so."""
    with suppress(FileNotFoundError):  # another process was first
        path.replace(path.with_name(path.name + ".corrupt"))
        log.warning("%s: set aside, will be computed again", error)


def _names(folder: Path) -> list[str]:
    """Names in a folder, none where it is missing. Nothing is opened, so it stays quick for 100,000 of them."""
    try:
        return os.listdir(folder)  # noqa: PTH208  names alone
    except (FileNotFoundError, NotADirectoryError):
        return []
