"""How much memory processes hold, from /proc (Linux): see proc(5)."""

from __future__ import annotations

import contextlib
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has held so far (VmHWM), with what it imported."""
    return _kilobytes("/proc/self/status", "VmHWM") * 1024


def family_bytes(pid: int) -> int:
    """Memory of a process and all that it started (PSS: what several share is counted once)."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    family, before = {pid}, 0
    while len(family) > before:
        before = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    total = 0
    for member in family:
        with contextlib.suppress(OSError, StopIteration):
            total += _kilobytes(f"/proc/{member}/smaps_rollup", "Pss") * 1024
    return total


def private_bytes(pid: int) -> int:
    """Memory of a process that no other one shares."""
    rollup = f"/proc/{pid}/smaps_rollup"
    return (_kilobytes(rollup, "Private_Clean") + _kilobytes(rollup, "Private_Dirty")) * 1024


def _kilobytes(path: str, field: str) -> int:
    """A number of a file of /proc: see proc(5)."""
    lines = Path(path).read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])
