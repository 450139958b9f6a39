"""Claims: who works on which job, so that several processes, on one machine or many, can share one run folder.

A claim is a folder `store/claims/<key>` that holds one empty file, whose name says who has the claim:
`host~machine~pid~start~nonce` (the nonce makes it unique for ever).
    take        a folder with the file already in it is renamed to `<key>`: this works where `<key>` is missing or empty
    take over   the file of a holder that is gone is renamed to the taker's name: of several takers one succeeds, and a
                slow one cannot hit a newer claim, since the old name never comes back
    release     the file, then the folder, are removed
A holder is gone when it ran on this machine and no process has its pid and start time; or when it ran elsewhere and
the file's time, which it renews every BEAT seconds, stood still for STALE_AFTER seconds of *our* monotonic clock. Two
clocks are never compared, so wrong and jumping ones do not matter.

What a shared file system must provide: atomic rename within a folder, of files and of folders, seen in the same order
by all machines, and modification times (local disks, NFS version 3 or 4, Lustre, GPFS, CephFS do; mounted object
stores do not). Where a claim is lost all the same, as after a network failure of a minute, work is done twice but no
result is wrong: equal keys mean equal contents, and files appear whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

BEAT = 5.0  # seconds between signs of life; our choice: cheap (one time stamp a running job)
STALE_AFTER = 60.0  # seconds without one; our choice: outlives the pauses of a busy file server
LONGEST_PAUSE = 0.5  # seconds between two attempts of hold()


@dataclass(frozen=True)
class Holder:
    """A process: where it runs, and what tells it from a later process with the same pid."""

    host: str  # for people
    machine: str  # names the host since its last boot and the pid namespace: where pids can be compared
    pid: int
    start: str  # start time of the process, in ticks since boot; empty where the system does not say

    def __str__(self) -> str:
        return f"{re.sub('[^0-9A-Za-z.-]', '_', self.host)[:64]}~{self.machine}~{self.pid}~{self.start}"

    @property
    def alive(self) -> bool:
        """Whether a process of this machine with this pid and start runs."""
        return _process_start(self.pid) == self.start


class Claims:
    """The claims of one process on the jobs of a run folder. A context manager: all are released at the end."""

    def __init__(
        self, folder: Path, *, me: Holder | None = None, beat: float = BEAT, stale_after: float = STALE_AFTER
    ) -> None:
        self.folder, self._me, self._beat, self._stale_after = folder, me or this_process(), beat, stale_after
        self._held: dict[str, Path] = {}
        self._seen: dict[str, tuple[int, float]] = {}  # a file of elsewhere -> its time, and ours
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for key in list(self._held):
            self.release(key)

    def take(self, key: str) -> bool:
        """Claim a job; False while a living process has it (this one included)."""
        place, mine = self.folder / key, f"{self._me}~{uuid.uuid4().hex}"
        found = _names(place)
        if any(not self._gone(place / name) for name in found):
            return False
        self._held[key] = place / mine  # before the attempt: an interrupt in its middle leaves nothing behind
        if found:
            with suppress(FileNotFoundError):  # another taker was first, or the holder released it after all
                (place / found[0]).rename(place / mine)
        else:
            self._put(place, mine)
        if not (place / mine).exists():  # the answer of a rename may get lost on a network; what is there counts
            del self._held[key]
            return False
        self._live()
        return True

    def release(self, key: str) -> None:
        """Give a claim back. Nothing happens to a claim that another process took over."""
        path = self._held.get(key)
        if path is not None:
            with suppress(OSError):  # taken over, or the folder can no longer be written: it goes stale by itself
                path.unlink()
                path.parent.rmdir()
            del self._held[key]

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Wait for a claim, and have it inside the with block."""
        pause = 0.01
        while not self.take(key):
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        try:
            yield
        finally:
            self.release(key)

    def announce(self) -> None:
        """Claim a name for this process itself, until the end: what `clear` in another process looks for."""
        self.take(f"process-{uuid.uuid4().hex[:12]}")

    def clear(self) -> bool:
        """Remove claims of processes that are gone. True when no claim is left but our own.

        Call it under a claim that every process holds before it announces itself.
        """
        others = [self.folder / key for key in _names(self.folder) if key not in self._held]
        if not all(self._gone(place / name) for place in others for name in _names(place)):
            return False
        unborn = [path for path in self.folder.glob(".*~*") if self._gone(path.with_name(path.name[1:]))]
        for path in (*others, *unborn):
            shutil.rmtree(path, ignore_errors=True)
        return True

    def holders(self) -> dict[str, str]:
        """Key -> host and pid of every claim, for people; it may be of a process that is gone."""
        found = {key: _names(self.folder / key) for key in _names(self.folder)}
        return {key: " ".join(names[0].split("~")[0:3:2]) for key, names in found.items() if names}

    def _put(self, place: Path, mine: str) -> None:
        fresh = self.folder / f".{mine}"  # hidden until it is whole
        fresh.mkdir(parents=True)
        (fresh / mine).touch()
        try:
            fresh.rename(place)
        except OSError as error:
            (fresh / mine).unlink(missing_ok=True)
            fresh.rmdir()
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # those say: another process was first
                raise

    def _gone(self, path: Path) -> bool:
        """Whether the holder that a claim's file names is gone, as far as we know by now."""
        holder = _parsed(path.name)
        if holder is not None and holder.machine == self._me.machine:
            return not holder.alive
        try:
            with path.open("rb") as stream:  # opened, since a file server's client may remember old times otherwise
                changed = os.fstat(stream.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False  # released or taken over just now: look again later
        known, since = self._seen.get(path.name, (None, 0.0))
        if known != changed:
            self._seen[path.name] = (changed, time.monotonic())
            return False
        return time.monotonic() - since > self._stale_after

    def _live(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._show_life, name="claims", daemon=True)
            self._thread.start()

    def _show_life(self) -> None:
        while not self._over.wait(self._beat):
            for path in self._held.copy().values():  # a copy: the main thread takes and releases
                with suppress(OSError):  # released or taken over just now; else one missed beat of many
                    os.utime(path)


def this_process() -> Holder:
    """Who we are."""
    host, parts = socket.gethostname(), []
    with suppress(OSError):  # not Linux: the host's name has to do
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    machine = hashlib.sha256(" ".join([host, *parts]).encode()).hexdigest()[:12]
    return Holder(host, machine, os.getpid(), _process_start(os.getpid()) or "")


def _process_start(pid: int) -> str | None:
    """Start time of a running process in ticks since boot ("" where the system does not say), None when it is gone."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # it runs, and is not ours
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]  # state (Z, X: dead, not yet collected); starttime: man 5 proc


def _parsed(name: str) -> Holder | None:
    parts = name.split("~")
    return Holder(parts[0], parts[1], int(parts[2]), parts[3]) if len(parts) == 5 and parts[2].isdigit() else None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208  names alone
    except (FileNotFoundError, NotADirectoryError):
        return []
