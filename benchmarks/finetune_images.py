"""Fine-tuning a pruned PreResNet: images a second a core, twore's worker against the loop that published code uses.

    python benchmarks/finetune_images.py [--data DIR] [--json benchmarks/results/finetune_images.json]
    taskset -c 0,1 python benchmarks/finetune_images.py        # on a larger machine: two cores, as on a laptop
    python benchmarks/finetune_images.py --depth 8             # a smaller network: the loop's PIL images weigh more
    python benchmarks/finetune_images.py --device cuda --images 20000    # on a GPU: both sides on it

Compared, at the same depth, width, batch of 64, crop and flip, SGD with momentum, and masks of ratio 0.9:
- loop        benchmarks/plain_loop.py: PIL transforms, DataLoader with 2 workers, eager float32, torch's default
              threads. On a CPU it is given every core this process may use, so its rate is divided by their number.
- loop, 1 core  the same, all its processes held to one core, with one thread: no core idles on its account.
- float32, bf16  one worker of a twore study: twore.training.train on one thread, in either precision.
- 2 x float32, 2 x bf16  two such workers at once.
- float32, 32 stacked  --widths 32: so many cells as one model, the images of every cell counted.

On a GPU the cases held to a core and those of two workers fall away, and rates are compared as they are; both sides
compute as torch does by default there, float32 convolutions in TF32. The loop's two loader workers are likely to be its
limit there, so that one with a worker for each core stands beside it. On a CPU rates are of a core. Cells an hour (a
cell of the preset `paper`: 40 epochs of 50,000 images; its training alone, without a score) are of all that a case
uses.

Fair: every timing is a fresh process, the first epoch of each is not counted, all cases of a round run one after the
other (the order turns each round), and a ratio is taken within its round; smallest, median and largest are printed and
every number is kept. The loop is helped where it can be (see plain_loop.py). More threads than a small model can use
make the first comparison kinder to twore: so the machine should have few cores, and the ratios against the loop on one
core and by CPU time used stand beside it. What is in the images does not matter for speed: without --data they are
random. Numbers of a busy machine mean nothing: what other processes used is measured, and said when it was too much.

Targets (medians, of PreResNet-20, the default): a core, float32 at least 1.8 times the loop, and 3 times in bf16 where
the processor gains from bf16 (where twore would choose it: 1.25 times float32 or more); two workers at least 1.8 times
one. On a GPU twore's best case at least 20 times the loop. bf16 is left out where the device has no instructions for
it.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    Clock,
    Timing,
    cores,
    has_bf16,
    in_words,
    judged,
    kept,
    measure,
    positive,
    print_table,
    provenance,
    show,
    spread,
    take_turns,
    write_json,
)
from plain_loop import LOADER_WORKERS, fine_tune

from twore.data.images import ImageSet, load_images
from twore.pruning.spec import Pruning
from twore.seeds import seed_everything
from twore.tasks.cifar import CifarTask, ImageData
from twore.training import REPORT_FINETUNE, Epoch, Numerics, Pruner, Run, Stack, StackedData, StackedPruner, train
from twore.training.numerics import WORTHWHILE, use_threads

RATIO = 0.9  # of the convolutions' weights
TEST_IMAGES = 64  # a data set has a test part; nothing is evaluated here
TARGET_FLOAT32, TARGET_BF16, TARGET_TWO_WORKERS, TARGET_GPU = 1.8, 3.0, 1.8, 20.0  # asked of ourselves; see above
CELL_IMAGES = REPORT_FINETUNE.epochs * 50_000  # of the preset paper, whose training set is whole
GPU_WIDTHS = (8, 32, 64)  # stacked, where --widths does not say; our choice

Cases = dict[str, tuple[Callable[..., int], int]]  # name -> (what runs, how many copies at once)


@dataclass(frozen=True, eq=False)
class Workload:
    """What every case does."""

    images: np.ndarray  # uint8 (N, 32, 32, 3)
    labels: np.ndarray  # int64 (N,)
    depth: int
    width: int
    epochs: int  # counted ones
    device: str


def loop(work: Workload, clock: Clock, *, one_core: bool = False, workers: int = LOADER_WORKERS) -> int:
    """The usual loop, with torch's default threads or on one core alone."""
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the loader's processes inherit it
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # two loaders on one core, knowingly
    options: dict[str, Any] = {"depth": work.depth, "width": work.width, "epochs": work.epochs, "device": work.device}
    options |= {"workers": workers}
    return fine_tune(work.images, work.labels, ratio=RATIO, lr=REPORT_FINETUNE.lr, clock=clock, **options)


def worker(work: Workload, clock: Clock, *, precision: str, width: int = 1) -> int:
    """A worker of a twore study, one thread, at a cell or at `width` stacked: the real training loop, masks held."""
    numerics = Numerics(device=work.device, precision=precision, threads=1)
    use_threads(numerics.threads)  # as an executor does where a worker starts
    task, data = CifarTask(depth=work.depth, width=work.width), _data(work)
    models, pruners = [], []
    for seed in range(width):
        seed_everything(seed)
        models.append(task.build().to(work.device))
        pruners.append(Pruner(models[-1], Pruning(kinds=("conv",)), RATIO))
    spec = replace(REPORT_FINETUNE, epochs=1 + work.epochs)
    if width == 1:
        run = Run(models[0], data, spec, "finetune", 0, numerics, pruners[0])
    else:
        stack = Stack(models, bf16=precision == "bf16")
        holder = StackedPruner(stack, pruners)
        run = Run(stack.module, StackedData(data, stack), spec, "finetune", 0, numerics, holder, width=width)

    def after_epoch(record: Epoch) -> dict[str, float]:
        if record.epoch == 1:
            clock.start()
        return {}

    train(run, after_epoch=after_epoch)
    clock.stop()
    return work.epochs * len(work.images) * width


def cases_of(device: str, widths: Sequence[int]) -> Cases:
    """What runs on this machine."""
    cases: Cases = {"loop": (loop, 1)}
    precisions = ["float32"] + ["bf16"] * has_bf16(device)
    if device == "cpu":
        cases["loop, 1 core"] = partial(loop, one_core=True), 1
    if device == "cuda":
        cases[f"loop, {cores()} workers"] = partial(loop, workers=cores()), 1
    for precision in precisions:
        cases[precision] = partial(worker, precision=precision), 1
    for precision in precisions if device == "cpu" else ():
        cases[f"2 x {precision}"] = partial(worker, precision=precision), 2
    for precision in precisions:
        for width in widths:
            cases[f"{precision}, {width} stacked"] = partial(worker, precision=precision, width=width), 1
    return cases


def main() -> None:
    """Measure all cases in turn, print the rates and the ratios, and keep everything."""
    options = _arguments()
    about, work = provenance(options.device), _workload(options)
    if work.device == "cpu" and about["cores"] < 2:
        raise SystemExit("this benchmark needs two cores: run it without taskset, or on another machine")
    widths = options.widths if options.widths is not None else GPU_WIDTHS if work.device == "cuda" else ()
    cases = cases_of(work.device, widths)
    print(f"PreResNet-{work.depth}, width {work.width}, {len(work.images)} images x {work.epochs} counted epochs")
    print(f"{in_words(about)}\n")

    def run(name: str) -> Timing:
        case, copies = cases[name]
        return measure(partial(case, work), copies=copies)

    rounds = take_turns(list(cases), run, options.rounds, lambda timing: f"{timing.rate:8.0f} images/s")
    ratios = _ratios(rounds, about["cores"]) if work.device == "cpu" else _gpu_ratios(rounds)
    show("images/s", rounds, ratios)
    hourly = _cells_an_hour(rounds)
    if options.json:
        settings = {"depth": work.depth, "width": work.width, "images": len(work.images), "epochs": work.epochs}
        settings |= {"data": options.source, "device": work.device}
        result = {"benchmark": "finetune_images", "provenance": about, "settings": settings, "ratios": ratios}
        write_json(options.json, result | {"cells_an_hour": hourly, "rounds": kept(rounds)})


def _cells_an_hour(rounds: list[dict[str, Timing]]) -> dict[str, dict[str, Any]]:
    """Of the preset paper, by what each case uses: printed, and returned."""
    hourly = {name: spread([timings[name].rate * 3600 / CELL_IMAGES for timings in rounds]) for name in rounds[0]}
    rows = [[name, *(f"{found[part]:.2f}" for part in ("min", "median", "max"))] for name, found in hourly.items()]
    print_table([f"cells an hour, of {CELL_IMAGES:,} images", "min", "median", "max"], rows)
    return hourly


def _gpu_ratios(rounds: list[dict[str, Timing]]) -> dict[str, dict[str, Any]]:
    """Every case over the loops on the same GPU; the target is for the best of them against the loop as published."""
    loops = [name for name in rounds[0] if name.startswith("loop")]
    ratios = {
        f"{name} / {other}": judged([timings[name].rate / timings[other].rate for timings in rounds])
        for other in loops
        for name in rounds[0]
        if name not in loops
    }
    best = max((name for name in ratios if name.endswith("/ loop")), key=lambda name: ratios[name]["median"])
    return ratios | {best: judged(ratios[best]["rounds"], TARGET_GPU)}


def _ratios(rounds: list[dict[str, Timing]], count: int) -> dict[str, dict[str, Any]]:
    """Each ratio's values over the rounds, with its target where it has one. count: cores of the machine."""

    def rates(case: str) -> np.ndarray:
        return np.array([timings[case].rate for timings in rounds])

    def cpu_rates(case: str) -> np.ndarray:
        return np.array([timings[case].cpu_rate for timings in rounds])

    targets: dict[str, float | None] = {"float32": TARGET_FLOAT32}
    ratios = {}
    if "bf16" in rounds[0]:
        gain = judged((rates("bf16") / rates("float32")).tolist())
        targets["bf16"] = TARGET_BF16 if gain["median"] >= WORTHWHILE else None
        ratios["bf16 / float32"] = gain
    for name, target in targets.items():
        ratios |= {
            f"{name} / loop, a core": judged((rates(name) / (rates("loop") / count)).tolist(), target),
            f"{name} / loop on one core": judged((rates(name) / rates("loop, 1 core")).tolist()),
            f"{name} / loop, a CPU-second": judged((cpu_rates(name) / cpu_rates("loop")).tolist()),
            f"two workers / one, {name}": judged((rates(f"2 x {name}") / rates(name)).tolist(), TARGET_TWO_WORKERS),
        }
    for name in (name for name in rounds[0] if name.endswith("stacked")):
        single = name.partition(",")[0]
        ratios[f"{name} / {single}"] = judged((rates(name) / rates(single)).tolist())
    return ratios


def _data(work: Workload) -> ImageData:
    """The images, on the device."""
    test = {"test_images": work.images[:TEST_IMAGES], "test_labels": work.labels[:TEST_IMAGES]}
    images = ImageSet(work.images, work.labels, **test, classes=10, fingerprint="benchmark", source="benchmark")
    return ImageData(CifarTask(depth=work.depth, width=work.width), images, torch.device(work.device))


def _workload(options: argparse.Namespace) -> Workload:
    if options.data:
        full = load_images("cifar10", options.data)
        images, labels = full.train_images[: options.images], full.train_labels[: options.images]
        options.source = "cifar10"
    else:
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
        labels, options.source = draw.integers(0, 10, options.images), "random"
    return Workload(np.ascontiguousarray(images), labels, options.depth, options.width, options.epochs, options.device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    folder = os.environ.get("TWORE_DATA")
    parser.add_argument("--data", type=Path, default=folder and Path(folder), help="folder with CIFAR-10; else random")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides train")
    parser.add_argument("--widths", type=positive, nargs="*", help="cells in a stack; default: none, on a GPU 8 32 64")
    parser.add_argument("--depth", type=int, default=20, help="of the PreResNet, 6n+2")
    parser.add_argument("--width", type=int, default=16, help="channels of its first stage")
    parser.add_argument("--images", type=positive, default=4000, help="in an epoch")
    parser.add_argument("--epochs", type=positive, default=2, help="counted ones, after one of warm-up")
    parser.add_argument("--rounds", type=positive, default=3, help="each measures every case once")
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
