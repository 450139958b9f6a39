"""Where results may go: never into what was read, and whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_out(source: Path, out: Path, *, folder: bool) -> None:
    """Raise ValueError unless `out` is a new place outside `source`; nothing is made.

    folder: whether `out` will be a folder (an empty one may be there already) or a file.
    """
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents:
        raise ValueError(
            f"{out} is the checkpoint itself or lies in it, and twore never writes there: name another --out"
        )
    if there in here.parents:
        raise ValueError(f"{out} holds the checkpoint itself: name another --out")
    if folder and there.is_dir() and not any(there.iterdir()):
        return
    if there.exists():
        raise ValueError(f"{out} is there already, and twore overwrites nothing: name another --out, or remove it")
    above = next(parent for parent in there.parents if parent.exists())
    if not above.is_dir():
        raise ValueError(f"{out} cannot be made, since {above} is a file: name another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be made, since {above} may not be written to: name another --out")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends and is removed when it fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if out.is_dir():
            out.rmdir()  # empty, as check_out saw
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_files(out: Path) -> Iterator[Path]:
    """A folder to fill with files, which move beside `out` when the block ends, the one of its name last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == out.name):
            path.replace(out.with_name(path.name))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
