"""What the benchmarks share: timing in fresh processes, ratios of one run, and a JSON record that says where it ran.

A case is a function `work(clock)` that warms up, calls clock.start(), works, calls clock.stop() and returns how many
units (images, tokens) it did in between. Each timing runs in a process of its own, so that no case inherits another's
threads, caches or memory; copies that run at once start their clocks together. Linux only: the cores a process may use
and the CPU time of its children are read from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from memory import peak_bytes, private_bytes

from twore.provenance import code_version

QUIET = 0.1  # cores of others up to which a machine counts as quiet; our choice: an idle system's own services
PATIENCE = 600.0  # seconds that copies wait for each other's warm-up
BF16_FLAGS = ("avx512_bf16", "amx_bf16")  # in /proc/cpuinfo
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Timing:
    """One measurement: of one process, or of several that ran at once."""

    units: int  # done between start and stop, by all copies
    seconds: float  # from the first copy's start to the last one's stop
    cpu_seconds: float  # used by all copies and their child processes
    threads: int  # torch's, in each copy
    others: float  # cores that all other processes of the machine kept busy meanwhile: about 0 on a quiet one
    peak_bytes: int  # of memory, by all copies and what their child processes do not share with them
    gpu_peak_bytes: int  # allocated on the GPU by all copies; 0 without one

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.units / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Units a second of CPU time."""
        return self.units / self.cpu_seconds


class Clock:
    """Started and stopped once by the work that is timed."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier
        self.started = self.stopped = self.cpu_seconds = self.busy_seconds = 0.0
        self.peak_bytes = 0

    def start(self) -> None:
        """Wait until all copies, and their GPU, have warmed up, then begin."""
        _wait_for_gpu()
        self._barrier.wait(PATIENCE)
        self.cpu_seconds, self.busy_seconds = -_cpu_seconds(), -_busy_seconds()
        self.started = time.monotonic()  # one clock for all processes of the machine

    def stop(self) -> None:
        """End, when the GPU is done. Child processes must still live, or their CPU time and memory are lost."""
        _wait_for_gpu()
        self.stopped = time.monotonic()
        self.cpu_seconds += _cpu_seconds()
        self.busy_seconds += _busy_seconds()
        children = (child.pid for child in multiprocessing.active_children())
        self.peak_bytes = peak_bytes() + sum(private_bytes(pid) for pid in children if pid)


def measure(work: Callable[[Clock], int], *, copies: int = 1) -> Timing:
    """Time `work` (a picklable function) in `copies` fresh processes at once. RuntimeError when one of them fails."""
    context = multiprocessing.get_context("spawn")
    for name in THREAD_VARIABLES:
        os.environ.pop(name, None)  # a case that asks for torch's default threads must get them
    barrier, pipes, processes = context.Barrier(copies), [], []
    for _ in range(copies):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_timed, args=(work, barrier, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        records = [pipe.recv() for pipe in pipes]
    except EOFError:
        raise RuntimeError("a measured process ended without a result: its own message is above") from None
    finally:
        barrier.abort()  # a copy that still waits for a failed one ends
        for process in processes:
            process.join()
    units, started, stopped, cpu_seconds, busy_seconds, threads, peaks, gpu_peaks = zip(*records)
    others = max(0.0, busy_seconds[0] - sum(cpu_seconds)) / (stopped[0] - started[0])
    seconds = max(stopped) - min(started)
    return Timing(sum(units), seconds, sum(cpu_seconds), threads[0], others, sum(peaks), sum(gpu_peaks))


def take_turns(
    cases: Sequence[str], run: Callable[[str], Timing], rounds: int, say: Callable[[Timing], str]
) -> list[dict[str, Timing]]:
    """Each case once a round, the order turned each round; prints what `say` makes of a timing as it comes."""
    width, measured = max(len(name) for name in cases) + 1, []
    for number in range(rounds):
        timings = {}
        for name in cases if number % 2 == 0 else reversed(cases):
            timings[name] = run(name)
            print(f"round {number + 1}  {name:{width}}{say(timings[name])}", flush=True)
        measured.append({name: timings[name] for name in cases})
    print()
    return measured


def kept(rounds: Sequence[dict[str, Timing]]) -> list[dict[str, Any]]:
    """Every number of all rounds, for the JSON record."""
    return [{name: asdict(timing) for name, timing in timings.items()} for timings in rounds]


def warn_if_busy(rounds: Sequence[dict[str, Timing]]) -> None:
    """Say so when other processes used more than QUIET cores."""
    if max(timing.others for timings in rounds for timing in timings.values()) > QUIET:
        print("Other processes kept the machine busy meanwhile: these numbers are not worth keeping.\n")


def cores() -> int:
    """CPU cores that this process and its children may use."""
    return len(os.sched_getaffinity(0))


def busy_cores(seconds: float = 1.0) -> float:
    """Cores that all processes of the machine kept busy for a while in which this one does nothing."""
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / seconds


def has_bf16(device: str) -> bool:
    """Whether the device has instructions for bf16, so that it may gain from it."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")  # Linux; elsewhere --precision says it
    return flags.exists() and any(flag in flags.read_text().split() for flag in BF16_FLAGS)


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Where and with what a result was made. SystemExit for a GPU that is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here: leave --device cuda out")
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return gpu | {
        "cpu": models[0] if models else platform.processor(),
        "cores": cores(),
        "cores_of_machine": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": code_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def in_words(about: dict[str, Any]) -> str:
    """The part of `provenance` that people look for first."""
    parts = (about.get("gpu", about["cpu"]), about["torch"], about["commit"], about["date"])
    return f"{', '.join(parts)}, {about['cores']} cores"


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Smallest, median and largest of the rounds' values, and all of them."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "rounds": list(values)}


def judged(values: Sequence[float], target: float | None = None) -> dict[str, Any]:
    """The spread of a ratio over the rounds, and whether its median reaches the target, where it has one."""
    result = spread(values)
    return result | {"target": target, "met": None if target is None else result["median"] >= target}


def show(unit: str, rounds: Sequence[dict[str, Timing]], ratios: dict[str, dict[str, Any]]) -> None:
    """Print the rates of all cases and the ratios, and say when the machine was too busy for either."""
    on_gpu = any(timing.gpu_peak_bytes for timings in rounds for timing in timings.values())
    rows = []
    for name in rounds[0]:
        timings = [timings[name] for timings in rounds]
        rate, cpu_rate = spread([t.rate for t in timings]), spread([t.cpu_rate for t in timings])
        numbers = [rate["min"], rate["median"], rate["max"], cpu_rate["median"]]
        others = max(t.others for t in timings)
        peaks = [max(t.peak_bytes for t in timings)] + [max(t.gpu_peak_bytes for t in timings)] * on_gpu
        held = [f"{peak / 1e6:,.0f}" for peak in peaks]
        rows.append([name, *(f"{number:.0f}" for number in numbers), str(timings[0].threads), *held, f"{others:.2f}"])
    memory = ["peak MB"] + ["of the GPU"] * on_gpu
    print_table([unit, "min", "median", "max", "a CPU-second", "threads", *memory, "cores of others"], rows)
    rows = []
    for name, ratio in ratios.items():
        verdict = "" if ratio["target"] is None else f"{ratio['target']} {'met' if ratio['met'] else 'MISSED'}"
        rows.append([name, *(f"{ratio[part]:.2f}" for part in ("min", "median", "max")), verdict])
    print_table(["ratio", "min", "median", "max", "target"], rows)
    warn_if_busy(rounds)


def positive(text: str) -> int:
    """For argparse: a whole number, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1: got {number}")
    return number


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their contents; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for first, *others in (header, *rows):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        print("  ".join(cells).rstrip())
    print()


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Keep a result; ValueError for a number that is not finite, since then a measurement was broken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(f"written: {path}")


def _timed(work: Callable[[Clock], int], barrier: Barrier, pipe: Connection) -> None:
    clock = Clock(barrier)
    units = work(clock)
    times = (clock.started, clock.stopped, clock.cpu_seconds, clock.busy_seconds)
    gpu_peak = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    pipe.send((units, *times, torch.get_num_threads(), clock.peak_bytes, gpu_peak))


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _cpu_seconds() -> float:
    """CPU time so far of this process and of its living children (a DataLoader's workers)."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time, fields 14 and 15 of proc(5)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _busy_seconds() -> float:
    """CPU time of the whole machine so far in which a core was not idle, or was taken away by a hypervisor."""
    fields = Path("/proc/stat").read_text().split()[1:9]  # the first line, of all cores: see proc(5)
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
