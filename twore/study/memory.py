"""How much memory this process can still take: what the machine has, and what its control groups leave.

A container or a batch job may use less than the machine has. Linux says so in files (man 7 cgroups, and the kernel's
"Memory Resource Controller" and "Control Group v2"); other systems are asked for all their memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# limit, use, and the name in memory.stat of file pages that are given back when memory is short
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that are left for this process. root: where proc and sys lie."""
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        available = 1024 * int(fields["MemAvailable"].split()[0])  # kB, with what the system would give back
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([available, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes that each control group of this process leaves, where it has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, place = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        top, names = (root / "sys/fs/cgroup", V2) if number == "0" else (root / "sys/fs/cgroup/memory", V1)
        own = top / place.lstrip("/")
        for folder in [own, *own.parents]:  # in a container the place may be one of the host, and only the top is there
            left = _left(folder, *names)
            if left is not None:
                yield left
            if folder == top:
                break


def _left(folder: Path, limit: str, used: str, reclaimable: str) -> int | None:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else int(most) - now + int(stat.get(reclaimable, 0))
