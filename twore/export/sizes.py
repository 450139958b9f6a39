"""Bytes on disk, measured: a file as it is, and as zlib and lzma would leave it. Nothing is estimated."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

PathLike = str | os.PathLike[str]
CHUNK = 1 << 20  # bytes
# zlib's default level; lzma's fastest but one, since its default takes a second a megabyte and gains a few percent
LEVELS = {"zlib": 6, "lzma": 1}


def measure_sizes(files: Mapping[str, PathLike | Sequence[PathLike]], *, compressed: bool = True) -> pd.DataFrame:
    """A row a form of the model: its bytes, its share of the first form's bytes, and its bytes after compression.

    files: form -> its file or files, the dense form first. Columns: form, bytes, share, and with `compressed` zlib and
    lzma: the length of the compressed stream (levels: LEVELS), which is computed and not kept.
    """
    rows = []
    for form, given in files.items():
        paths = [Path(one) for one in ([given] if isinstance(given, str | os.PathLike) else given)]
        row: dict[str, object] = {"form": form, "bytes": sum(path.stat().st_size for path in paths)}
        if compressed:
            for name, compressor in COMPRESSORS.items():
                row[name] = sum(compressor(path) for path in paths)
        rows.append(row)
    table = pd.DataFrame(rows)
    table.insert(2, "share", table["bytes"] / table["bytes"].iloc[0])
    return table


def _zlib(path: Path) -> int:
    return _length(path, lambda: zlib.compressobj(LEVELS["zlib"]))


def _lzma(path: Path) -> int:
    return _length(path, lambda: lzma.LZMACompressor(preset=LEVELS["lzma"]))


COMPRESSORS: dict[str, Callable[[Path], int]] = {"zlib": _zlib, "lzma": _lzma}


def _length(path: Path, start: Callable) -> int:
    compressor, length = start(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            length += len(compressor.compress(chunk))
    return length + len(compressor.flush())
