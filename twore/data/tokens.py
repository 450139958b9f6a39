"""Tokens of many sentences as two flat arrays, memory-mapped from files, and the folders that hold such files.

Sentence i is values[offsets[i] : offsets[i + 1]] and ends in EOS, on both sides: a target is what the model must say;
what its decoder reads is the same, shifted by one behind a begin token. N sentences, M tokens of all of them.

A folder of arrays is made once: it is filled under another name and renamed into place with a manifest of checksums, so
it is there whole or not at all, and several processes may make the same one at once. Reading it checks every file.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twore.data.pairs import Pairs
from twore.data.vocabulary import EOS, Vocabulary
from twore.files import CorruptFileError, read_record, write_record

MANIFEST = "manifest.json"
BUILDING = ".building-"  # begins the name of a folder that is being filled
ABANDONED = 86_400.0  # seconds after which such a folder is a killed process's; our choice


@dataclass(frozen=True, eq=False)
class Tokens:
    """N sentences of one language, each ending in EOS."""

    values: NDArray[np.int32]  # (M,)
    offsets: NDArray[np.int64]  # (N + 1,)

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Tokens:
        """From the ids of each sentence, to each of which EOS is added."""
        lengths = np.fromiter((len(sentence) + 1 for sentence in sentences), np.int64, len(sentences))
        offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
        ids = chain.from_iterable((*sentence, EOS) for sentence in sentences)
        return cls(np.fromiter(ids, np.int32, int(offsets[-1])), offsets)

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """All sentences of the parts, in order."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        return cls(np.concatenate([part.values for part in parts]), lengths.cumsum())

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence with its EOS, (N,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """N sentence pairs."""

    source: Tokens
    target: Tokens

    def __len__(self) -> int:
        return len(self.source)


def encode_pairs(
    pairs: Pairs, vocabulary: Vocabulary, *, drop_over: int | None = None, cut_at: int | None = None
) -> tuple[TokenPairs, NDArray[np.int64], int]:
    """(tokens, rows of `pairs` that they are of, sides cut short).

    drop_over  pairs with more tokens than this on a side (EOS not counted), or with none, are left out
    cut_at     longer sides keep the first cut_at - 1 tokens, and EOS
    """
    parts: list[tuple[Tokens, Tokens]] = []
    rows: list[int] = []
    first = cut = 0
    for part in pairs.parts():  # in parts, since a list of ids takes ten times the array's memory
        encoded = [vocabulary.encode(texts) for texts in part.texts()]
        if drop_over is not None:
            keep = [i for i, both in enumerate(zip(*encoded)) if all(0 < len(side) <= drop_over for side in both)]
            encoded = [[side[i] for i in keep] for side in encoded]
        else:
            keep = list(range(len(part)))
        if cut_at is not None:
            cut += sum(len(ids) >= cut_at for side in encoded for ids in side)
            encoded = [[ids[: cut_at - 1] for ids in side] for side in encoded]
        rows.extend(first + i for i in keep)
        first += len(part)
        parts.append((Tokens.of(encoded[0]), Tokens.of(encoded[1])))
    sources, targets = zip(*parts)
    return TokenPairs(Tokens.joined(sources), Tokens.joined(targets)), np.array(rows, np.int64), cut


def write_pairs(folder: Path, name: str, pairs: TokenPairs) -> None:
    """Write the set `name` into `folder`."""
    for side in ("source", "target"):
        tokens: Tokens = getattr(pairs, side)
        np.save(folder / f"{name}.{side}.values.npy", tokens.values)
        np.save(folder / f"{name}.{side}.offsets.npy", tokens.offsets)


def read_pairs(folder: Path, name: str) -> TokenPairs:
    """The set `name`, memory-mapped: only what is used is read, and all processes share it."""

    def side(which: str) -> Tokens:
        arrays = (np.load(folder / f"{name}.{which}.{part}.npy", mmap_mode="r") for part in ("values", "offsets"))
        return Tokens(*map(np.asarray, arrays))  # a plain view of the mapping: memmap's own indexing is slow

    return TokenPairs(side("source"), side("target"))


def make_folder(path: Path, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Have `fill` write files into a new folder, add a manifest of them and of what it returns, rename it to `path`.

    When another process was faster its folder stays, and ours goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{BUILDING}*"):
        with contextlib.suppress(OSError):  # its maker just finished
            if time.time() - old.stat().st_mtime > ABANDONED:
                shutil.rmtree(old)
    building = path.parent / f"{BUILDING}{uuid.uuid4().hex[:12]}"
    building.mkdir()
    try:
        about = fill(building)
        files = {file.name: _sha256(file) for file in sorted(building.iterdir())}
        write_record(building / MANIFEST, {"about": about, "files": files})
        try:
            building.rename(path)
        except OSError:
            if not (path / MANIFEST).is_file():  # not because another process has made it
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_folder(path: Path) -> dict[str, Any] | None:
    """What `fill` returned, after every file has matched its checksum; None when there is no such folder.

    CorruptFileError when a file is missing or altered.
    """
    try:
        record = read_record(path / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_dir():
            raise CorruptFileError(f"{path} has no {MANIFEST}") from None
        return None
    for name, sha256 in record["files"].items():
        try:
            if _sha256(path / name) != sha256:
                raise CorruptFileError(f"{path / name} does not match its checksum")
        except FileNotFoundError as error:
            raise CorruptFileError(f"{path / name} is missing") from error
    return record["about"]


def discard_folder(path: Path) -> None:
    """Remove a folder, at once for others: it is renamed first. Processes that have its arrays mapped keep them."""
    away = path.with_name(f"{BUILDING}{uuid.uuid4().hex[:12]}")
    try:
        path.rename(away)
    except FileNotFoundError:  # another process did it
        return
    shutil.rmtree(away, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
