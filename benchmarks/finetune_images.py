"""Fine-tuning a pruned PreResNet: images a second a core, twore's worker against the loop that published code uses.

    python benchmarks/finetune_images.py [--data DIR] [--json benchmarks/results/finetune_images.json]
    taskset -c 0,1 python benchmarks/finetune_images.py        # on a larger machine: two cores, as on a laptop
    python benchmarks/finetune_images.py --depth 8             # a smaller network: the loop's PIL images weigh more

Compared, at the same depth, width, batch of 64, crop and flip, SGD with momentum, and masks of ratio 0.9:
- loop        benchmarks/plain_loop.py: PIL transforms, DataLoader with 2 workers, eager float32, torch's default
              threads. It is given every core this process may use, so its rate is divided by their number.
- loop, 1 core  the same, all its processes held to one core, with one thread: no core idles on its account.
- float32, bf16  one worker of a twore study: twore.training.train on one thread, in either precision.
- 2 x float32, 2 x bf16  two such workers at once.

Fair: every timing is a fresh process, the first epoch of each is not counted, all cases of a round run one after the
other (the order turns each round), and a ratio is taken within its round; smallest, median and largest are printed and
every number is kept. The loop is helped where it can be (see plain_loop.py). More threads than a small model can use
make the first comparison kinder to twore: so the machine should have few cores, and the ratios against the loop on one
core and by CPU time used stand beside it. What is in the images does not matter for speed: without --data they are
random. Numbers of a busy machine mean nothing: what other processes used is measured, and said when it was too much.

Targets (medians, of PreResNet-20, the default): a core, float32 at least 1.8 times the loop, and 3 times in bf16 where
the processor gains from bf16 (where twore would choose it: 1.25 times float32 or more); two workers at least 1.8 times
one. bf16 is left out where the processor has no instructions for it.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Clock, Timing, has_bf16, judged, kept, measure, positive, provenance, show, take_turns, write_json
from plain_loop import fine_tune

from twore.data.images import ImageSet, load_images
from twore.pruning.spec import Pruning
from twore.seeds import seed_everything
from twore.tasks.cifar import CifarTask, ImageData
from twore.training import REPORT_FINETUNE, Epoch, Numerics, Pruner, Run, train
from twore.training.numerics import WORTHWHILE, use_threads

RATIO = 0.9  # of the convolutions' weights
TEST_IMAGES = 64  # a data set has a test part; nothing is evaluated here
TARGET_FLOAT32, TARGET_BF16, TARGET_TWO_WORKERS = 1.8, 3.0, 1.8  # what this project asks of itself; see above


@dataclass(frozen=True, eq=False)
class Workload:
    """What every case does."""

    images: np.ndarray  # uint8 (N, 32, 32, 3)
    labels: np.ndarray  # int64 (N,)
    depth: int
    width: int
    epochs: int  # counted ones


def loop(work: Workload, clock: Clock, *, one_core: bool = False) -> int:
    """The usual loop, with torch's default threads or on one core alone."""
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the loader's processes inherit it
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # two loaders on one core, knowingly
    options: dict[str, Any] = {"depth": work.depth, "width": work.width, "epochs": work.epochs}
    return fine_tune(work.images, work.labels, ratio=RATIO, lr=REPORT_FINETUNE.lr, clock=clock, **options)


def worker(work: Workload, clock: Clock, *, precision: str) -> int:
    """A worker of a twore study at a cell: one thread, the real training loop, masks held."""
    numerics = Numerics(device="cpu", precision=precision, threads=1)
    use_threads(numerics.threads)  # as an executor does where a worker starts
    seed_everything(0)
    task = CifarTask(depth=work.depth, width=work.width)
    test = {"test_images": work.images[:TEST_IMAGES], "test_labels": work.labels[:TEST_IMAGES]}
    images = ImageSet(work.images, work.labels, **test, classes=10, fingerprint="benchmark", source="benchmark")
    model = task.build()
    pruner = Pruner(model, Pruning(kinds=("conv",)), RATIO)
    spec = replace(REPORT_FINETUNE, epochs=1 + work.epochs)
    data = ImageData(task, images, torch.device("cpu"))

    def after_epoch(record: Epoch) -> dict[str, float]:
        if record.epoch == 1:
            clock.start()
        return {}

    train(Run(model, data, spec, "finetune", 0, numerics, pruner), after_epoch=after_epoch)
    clock.stop()
    return work.epochs * len(work.images)


CASES: dict[str, tuple[Callable[..., int], int]] = {  # name -> (what runs, how many copies at once)
    "loop": (loop, 1),
    "loop, 1 core": (partial(loop, one_core=True), 1),
    "float32": (partial(worker, precision="float32"), 1),
    "bf16": (partial(worker, precision="bf16"), 1),
    "2 x float32": (partial(worker, precision="float32"), 2),
    "2 x bf16": (partial(worker, precision="bf16"), 2),
}


def main() -> None:
    """Measure all cases in turn, print the rates and the ratios, and keep everything."""
    options = _arguments()
    about, work = provenance(), _workload(options)
    if about["cores"] < 2:
        raise SystemExit("this benchmark needs two cores: run it without taskset, or on another machine")
    print(f"PreResNet-{work.depth}, width {work.width}, {len(work.images)} images x {work.epochs} counted epochs")
    print(", ".join(str(about[name]) for name in ("cpu", "torch", "commit", "date")) + f", {about['cores']} cores\n")

    def run(name: str) -> Timing:
        case, copies = CASES[name]
        return measure(partial(case, work), copies=copies)

    cases = [name for name in CASES if has_bf16("cpu") or not name.endswith("bf16")]
    rounds = take_turns(cases, run, options.rounds, lambda timing: f"{timing.rate:8.0f} images/s")
    ratios = _ratios(rounds, about["cores"])
    show("images/s", rounds, ratios)
    if options.json:
        settings = {"depth": work.depth, "width": work.width, "images": len(work.images), "epochs": work.epochs}
        result = {"benchmark": "finetune_images", "provenance": about, "settings": settings | {"data": options.source}}
        write_json(options.json, result | {"ratios": ratios, "rounds": kept(rounds)})


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
    return ratios


def _workload(options: argparse.Namespace) -> Workload:
    if options.data:
        full = load_images("cifar10", options.data)
        images, labels = full.train_images[: options.images], full.train_labels[: options.images]
        options.source = "cifar10"
    else:
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
        labels, options.source = draw.integers(0, 10, options.images), "random"
    return Workload(np.ascontiguousarray(images), labels, options.depth, options.width, options.epochs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    folder = os.environ.get("TWORE_DATA")
    parser.add_argument("--data", type=Path, default=folder and Path(folder), help="folder with CIFAR-10; else random")
    parser.add_argument("--depth", type=int, default=20, help="of the PreResNet, 6n+2")
    parser.add_argument("--width", type=int, default=16, help="channels of its first stage")
    parser.add_argument("--images", type=positive, default=4000, help="in an epoch")
    parser.add_argument("--epochs", type=positive, default=2, help="counted ones, after one of warm-up")
    parser.add_argument("--rounds", type=positive, default=3, help="each measures every case once")
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
