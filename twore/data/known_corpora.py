"""Fingerprints of corpora that were read before, so that a cache is found without reading gigabytes again.

A note says which files a corpus was read from, with their sizes and times. It is believed only while all of them are
unchanged, and it is written only when none had been touched for two seconds before reading began (a file that changes
twice within the clock's grain keeps its time). In doubt, the corpus is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twore.data.parallel import GENERATED, Corpus, corpus_files, load_corpus
from twore.files import CorruptFileError, read_record, write_record

FORMAT = 1  # raise it when the same files are read as other text
QUIET = 2.0  # seconds; the coarsest clock of a common file system (FAT)


@dataclass(frozen=True)
class Known:
    """What is known of a corpus without its text."""

    fingerprint: str
    dropped: int  # empty training pairs


def known_corpus(root: Path, dataset: str, folder: Path | None, source: str, target: str) -> Known | None:
    """What was noted in the folder `root` about this corpus; None when it must be read. Raises as `load_corpus`."""
    if dataset == GENERATED:
        from twore.data.generated import GENERATED_FINGERPRINT

        return Known(GENERATED_FINGERPRINT, 0)
    files = _files(dataset, folder, source, target)
    try:
        note = read_record(_note(root, dataset, folder, source, target))
    except (CorruptFileError, OSError):
        return None
    if files is not None and [str(path) for path in files] != [path for path, *_ in note["files"]]:
        return None
    if not note["files"] or _stats([Path(path) for path, *_ in note["files"]]) != note["files"]:
        return None
    return Known(note["fingerprint"], note["dropped"])


def read_and_note(root: Path, dataset: str, folder: Path | None, source: str, target: str) -> Corpus:
    """`load_corpus`, and a note of what was read."""
    began = time.time()
    files = _files(dataset, folder, source, target)
    before = _stats(files) if files is not None else None
    corpus = load_corpus(dataset, folder, source=source, target=target)
    after = _stats(corpus.files)
    # What the hub's client keeps (before is None) is never written again; other files may be changing right now.
    quiet = before is None or (before == after and all(_touched(path) < began - QUIET for path in corpus.files))
    if after and quiet:
        note = {"fingerprint": corpus.fingerprint, "dropped": corpus.dropped, "files": after}
        with contextlib.suppress(OSError):  # a read-only cache: the next process reads the corpus again
            write_record(_note(root, dataset, folder, source, target), note)
    return corpus


def _files(dataset: str, folder: Path | None, source: str, target: str) -> list[Path] | None:
    found = corpus_files(dataset, folder, source=source, target=target)
    return None if found is None else [path for files in found.values() for path in files.paths]


def _stats(files: Sequence[Path]) -> list[list[str | int]] | None:
    """[path, bytes, time of content, time of inode] of each file; None when one is gone."""
    try:
        stats = [(path, path.stat()) for path in files]
    except OSError:
        return None
    return [[str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in stats]


def _touched(path: Path) -> float:
    """Seconds since 1970."""
    stat = path.stat()
    return max(stat.st_mtime, stat.st_ctime)


def _note(root: Path, dataset: str, folder: Path | None, source: str, target: str) -> Path:
    place = "hub" if folder is None else str(folder.resolve())
    name = json.dumps([FORMAT, dataset, place, source, target])
    return root / "corpora" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"
