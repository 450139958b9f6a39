"""Numerics: on what and how precisely a run computes. Part of every result's identity.

`auto` is resolved once, when a study is created, and written to study.yaml: resumed elsewhere it keeps its numbers.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bf16")
KEPT, MAPPED = 1 << 30, 1 << 25  # bytes; 32 MiB is the documented upper limit of glibc's mmap threshold
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
WORTHWHILE = 1.25  # bf16 is taken when it is this many times faster; our choice: less is within timing noise


@dataclass(frozen=True)
class Numerics:
    """Device kind and floating-point behaviour of a study."""

    device: str = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda or mps."""
    precision: str = "auto"
    """float32; bf16: autocast, weights stay float32; auto: bf16 where a short measurement shows that it is faster."""
    threads: int = 1
    """CPU threads a worker; sums depend on it, so it is part of a result's identity."""
    stack: int = 1
    """Cells of one fine-tune seed that run as one stacked model; 1: one by one; 0: the fastest width that fits the
    memory, measured once when the study is created."""
    dense_stack: int = field(default=1, metadata={"since": "0.1.0"})
    """Dense runs of one setting, which differ in their seed, that train as one stacked model; 1: one by one."""

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ValueError(f"device is one of {', '.join(DEVICES)}: got {self.device!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}: got {self.precision!r}")
        if self.threads < 1:
            raise ValueError(f"threads is at least 1: got {self.threads}")
        if self.stack < 0:
            raise ValueError(f"stack is a number of models, or 0 to measure it: got {self.stack}")
        if self.dense_stack < 1:
            raise ValueError(f"dense_stack is a number of models, at least 1: got {self.dense_stack}")

    def autocast(self) -> AbstractContextManager:
        """The context in which forward passes run."""
        if self.precision == "bf16":
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return nullcontext()


def use_threads(threads: int) -> None:
    """Set torch's thread count for this process, and let it keep the memory it freed.

    glibc hands freed activations back to the system and faults them in again at every update, a fifth of the time of a
    small network on a CPU (benchmarks/finetune_images.py). Only speed depends on it; other C libraries are left alone.
    """
    torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED)


def resolve(numerics: Numerics, seconds: Callable[[Numerics], float] | None = None) -> Numerics:
    """Replace `auto` by what this machine has.

    seconds(numerics) -> time of a few training updates; called for float32 and bf16 when precision is auto.
    Without it, auto is float32 on a CPU and bf16 on an accelerator that supports it.
    """
    device = numerics.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no CUDA device here: use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device is mps, but torch sees no Apple GPU here: use --device cpu or auto")
    resolved = replace(numerics, device=device)
    if numerics.precision != "auto":
        return resolved
    exact, fast = replace(resolved, precision="float32"), replace(resolved, precision="bf16")
    if seconds is None:
        return fast if device == "cuda" and torch.cuda.is_bf16_supported() else exact
    return fast if seconds(exact) > WORTHWHILE * seconds(fast) else exact


def fastest(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Seconds of the fastest of some repetitions of `work`, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)
