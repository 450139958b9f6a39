"""The stack width of a study whose numerics.stack is 0: measured once, when the study is created.

A few fine-tuning updates of the heaviest setting (so that every other fits as well) are timed at 1, 2, 4, ... models.
The width is the smallest whose time a model is within NEAR of the best, and 1 unless stacking gains WORTHWHILE. It ends
where two widths in a row gain nothing, where the next would not fit the memory, or at the groups of one dense run.
"""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from twore.seeds import seed_everything
from twore.study.cost import size_of
from twore.study.memory import free_bytes
from twore.study.specs import Study
from twore.study.trial import FirstBatches
from twore.tasks.base import Task, TaskData
from twore.training import Numerics, Run, Stack, StackedData, train
from twore.training.numerics import fastest, use_threads

log = logging.getLogger("twore")

MOST = 64  # models; our choice: beyond it launches are no longer what a small network waits for
WORTHWHILE = 1.1  # times faster than one by one; our choice: less is within timing noise
NEAR = 0.95  # of the best rate; our choice: a wider stack costs memory and loses more to a kill
BATCHES, REPEATS = 4, 2
SHARE = 0.5  # of the free memory that a stack may take; our choice: evaluation and other workers need some


def fastest_width(study: Study, numerics: Numerics, load: Callable[[Task], TaskData]) -> int:
    """The width for this study on this machine, at least 1. numerics: with device and precision resolved."""
    setting = max((trajectory.study for trajectory in study.trajectories), key=_work)
    data = load(setting.task)
    groups = max(len(t.study.checkpoints) * len(t.study.ratios) for t in study.trajectories)
    threads = torch.get_num_threads()
    use_threads(numerics.threads)
    seconds: dict[int, float] = {}  # width -> a model's
    try:
        width = 1
        while width <= min(MOST, groups) and not _settled(list(seconds.values())):
            before = _memory(numerics.device)
            try:
                seconds[width] = _seconds(setting, data, numerics, width) / width
            except torch.OutOfMemoryError:
                break
            except (RuntimeError, ValueError) as error:
                if width == 1:
                    raise
                log.warning(
                    "a stack of %d models does not run, so it is narrower (%s)", width, str(error).split("\n")[0]
                )
                break
            used = _memory(numerics.device) - before
            if 2 * used > SHARE * _free_memory(numerics.device):
                break
            width *= 2
    finally:
        torch.set_num_threads(threads)
    return choose(seconds)


def choose(seconds: dict[int, float]) -> int:
    """The width to take, given the seconds of a model at each. Width 1 is there."""
    best = min(seconds.values())
    if seconds[1] < WORTHWHILE * best:
        return 1
    return min(width for width, each in seconds.items() if best >= NEAR * each)


def _settled(times: list[float]) -> bool:
    """Whether the last two widths were no faster than the best before them."""
    return len(times) > 2 and min(times[-2:]) >= NEAR * min(times[:-2])


def _work(setting: Study) -> float:
    """Of an update: multiply-adds of a forward pass, or bytes of the model where the task does not say."""
    size = size_of(setting.task)
    return (size.forward or size.bytes) * setting.finetune.batch_size / size.example_size


def _seconds(setting: Study, data: TaskData, numerics: Numerics, width: int) -> float:
    """Of a few fine-tuning updates of so many models at once."""
    seed_everything(0)
    models = [setting.task.build().to(numerics.device) for _ in range(width)]
    still = replace(setting.finetune, epochs=1, lr=0.0)  # nothing moves, so nothing can diverge
    trial = FirstBatches(data, BATCHES)
    if width == 1:
        run = Run(models[0], trial, still, "trial", 0, numerics)
    else:
        stack = Stack(models, bf16=numerics.precision == "bf16")
        run = Run(stack.module, StackedData(trial, stack), still, "trial", 0, numerics, width=width)
    return fastest(lambda: train(run), repeats=REPEATS)


def _memory(device: str) -> int:
    """The most bytes that this process has held so far on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kB on Linux
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _free_memory(device: str) -> int:
    """Bytes that are free on the device."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return free_bytes()
