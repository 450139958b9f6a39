"""Free memory from files as Linux writes them, for a machine, a container and a batch job."""

from __future__ import annotations

from pathlib import Path

import pytest

from twore.study.memory import free_bytes

MIB = 2**20


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    written = {"proc/meminfo": "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:  4096 kB\n"}
    written |= {"proc/self/cgroup": groups} | files
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(folder: str, most: str, used: int, cached: int = 0) -> dict[str, str]:
    place = f"sys/fs/cgroup{folder}"
    return {
        f"{place}/memory.max": f"{most}\n",
        f"{place}/memory.current": f"{used}\n",
        f"{place}/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", {}, 4 * MIB),  # what is available, not what is unused
        ("0::/\n", v2("", "max", 5), 4 * MIB),
        ("0::/\n", v2("", str(3 * MIB), 2 * MIB), MIB),
        ("0::/\n", v2("", str(3 * MIB), 2 * MIB, MIB), 2 * MIB),  # cached files are given back
        ("0::/job/step\n", v2("/job", str(2 * MIB), MIB) | v2("/job/step", "max", MIB), MIB),  # of a parent
        ("0::/job\n", v2("/job", str(MIB), 2 * MIB), 0),
        ("0::/of/the/host\n", v2("", str(3 * MIB), MIB), 2 * MIB),
    ],
)
def test_free_memory(tmp_path: Path, groups: str, files: dict[str, str], free: int) -> None:
    assert free_bytes(machine(tmp_path, groups, files)) == free


def test_free_memory_in_groups_of_the_first_version(tmp_path: Path) -> None:
    place = "sys/fs/cgroup/memory/job"
    files = {
        f"{place}/memory.limit_in_bytes": f"{3 * MIB}",
        f"{place}/memory.usage_in_bytes": f"{2 * MIB}",
        f"{place}/memory.stat": "total_inactive_file 0\n",
    }
    assert free_bytes(machine(tmp_path, "4:cpu,cpuacct:/job\n3:memory:/job\n", files)) == MIB


def test_without_such_files_all_memory_counts(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 100 * MIB
