"""What was measured is kept in the user's cache folder, never beside the checkpoints: a new one costs only itself.

A record is found by the contents of the checkpoint and everything else that may change its numbers. Contents are known
by a hash of all bytes of the weights' files, taken again whenever a file's size, times or place on the disk changed.
Records are written whole or not at all (twore.files); one that is damaged is measured again.

    <cache>/advise/stamps/<hash of path>.json    a file as it was when it was hashed, and the hash
    <cache>/advise/records/<kk>/<key>.json       what was measured
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twore.checkpoints import Checkpoint
from twore.files import CorruptFileError, cache_folder, read_record, write_record

FORMAT = 1  # raised when the code measures other numbers from equal contents
BLOCK = 2**22  # bytes hashed at once

log = logging.getLogger("twore")


class Cache:
    """Records on disk by a key made of plain values. `folder`: default the user's cache folder (`cache_folder`)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.root = cache_folder(folder) / "advise"

    def get(self, what: str, value: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of `value` in the role `what`; measured and written where there is none."""
        record = self.find(what, value)
        if record is None:
            record = measure()
            self.put(what, value, record)
        return record

    def find(self, what: str, value: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record, None where there is none (or none that is intact)."""
        return self._read(self.path(what, value))

    def put(self, what: str, value: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Write a record. OSError, with the way out, where the folder cannot be written to."""
        self._write(self.path(what, value), record)

    def path(self, what: str, value: Mapping[str, Any]) -> Path:
        """Where the record lies."""
        text = json.dumps({"format": FORMAT, "what": what, "value": dict(value)}, sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self.root / "records" / key[:2] / f"{key}.json"

    def contents(self, checkpoint: Checkpoint) -> str:
        """Equal for equal contents of the files with the weights, whatever they are called and wherever they lie."""
        digests = [self._digest(file.path) for file in checkpoint.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def _digest(self, path: Path) -> str:
        path = path.resolve()
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        place, status = self.root / "stamps" / f"{name}.json", path.stat()
        # the time of the last change of the file's entry (ctime) moves even where a tool puts the other time back
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        record = self._read(place)
        if record is None or record["stamp"] != stamp:
            record = {"stamp": stamp, "sha256": _sha256(path)}
            self._write(place, record)
        return record["sha256"]

    def _write(self, path: Path, record: Mapping[str, Any]) -> None:
        try:
            write_record(path, record)
        except OSError as error:
            raise OSError(f"{self.root} cannot be written to ({error.strerror}): name a folder, --cache DIR") from error

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            return read_record(path)
        except FileNotFoundError:
            return None
        except CorruptFileError as error:
            log.warning("%s: measured again", error)
            return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
