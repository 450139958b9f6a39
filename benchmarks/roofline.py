"""How far a fine-tuning update is from what the device could do: operations and bytes over measured ceilings.

    python benchmarks/roofline.py --json benchmarks/results/roofline.json          # a few minutes on one CPU thread
    python benchmarks/roofline.py --device cuda --precision bf16

Ceilings, measured here, each in a fresh process, on one thread:
- matmul        multiply-adds a second of a large matrix product
- convolution   the same of the library's best 3x3 convolution, over SHAPES (channels last; the best shape is printed)
- memory        bytes a second of a = b + s c over arrays beyond every cache (three arrays counted, as STREAM does)
- cache         the same over arrays as large as the activations of a small network, which a CPU's caches hold
- a call        seconds of an operation on one number: what starting it costs

Updates: fine-tuning as the presets do it, through the real training loop with masks held, on the first batches of
an epoch: `quick images` (PreResNet-8, digits), `images` (PreResNet-20, random 32x32 images, batch 64, the report) and
`quick text` (the small Transformer). One update is counted operation by operation as torch dispatches it (forward,
loss, backward, optimiser, masks):
- multiply-adds by torch.utils.flop_counter: half of its floating-point operations; products, convolutions, attention
- bytes         each operation reads its input tensors and writes its outputs once, every tensor counted by the numbers
                it holds; views cost nothing. An estimate: a kernel may move more (several passes, copies of layout),
                and a compiler that fuses operations would move less.

Bounds on the time of an update:
- arithmetic    multiply-adds / the best ceiling: nothing can be below it
- in cache      sum over operations of the larger of multiply-adds / ceiling and bytes / cache bandwidth: what these
                operations, one after the other, need at least while tensors stay in cache
- in memory     the same with the bandwidth of memory: what they need when no tensor stays in a cache
- calls         operations x a call

On a CPU, times are CPU time, so that a busy machine disturbs them less; the clock's beside it. On a GPU, the clock's.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    Clock,
    Timing,
    has_bf16,
    kept,
    measure,
    positive,
    print_table,
    provenance,
    spread,
    take_turns,
    warn_if_busy,
    write_json,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from twore.data.images import ImageSet
from twore.recipes import cifar_scaling, wmt14_regime
from twore.seeds import seed_everything
from twore.study.specs import Study
from twore.study.trial import FirstBatches
from twore.tasks.cifar import ImageData
from twore.training import Numerics, Pruner, Run, train
from twore.training.numerics import resolve, use_threads

RATIO = 0.9  # of the prunable weights; the multiplications by zero are done like any other
PRODUCT = {"cpu": 1024, "cuda": 8192}  # side of the square matrices
# channels, side, batch: convolutions a ResNet has, wide ones and narrow ones
SHAPES = ((16, 32, 64), (64, 32, 16), (128, 16, 32), (256, 16, 32), (256, 8, 64), (512, 8, 32))
LARGE, SMALL = (
    2**26,
    2**16,
)  # numbers an array: 256 MB, beyond every cache; 256 KB, a batch of 64 feature maps 16 x 8 x 8
UPDATES = ("quick images", "images", "quick text")
EPOCH = 8  # updates at once; what an epoch begins with (its order of examples) is counted and timed with them
BOUNDS = ("arithmetic", "in cache", "in memory", "calls")


@dataclass(frozen=True)
class Work:
    """What every case does."""

    device: str
    precision: str
    seconds: float  # a case repeats its work about as long, or more


@dataclass(frozen=True)
class Operation:
    """One operation of an update."""

    multiply_adds: float
    bytes: int


class Counter(TorchDispatchMode):
    """Collects the operations that torch dispatches while it is active; views are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        result = function(*args, **given)
        if is_view(function, (args, given), result):
            return result  # nothing moves
        read, written = _tensors((args, given)), _tensors(result)
        formula = flop_registry.get(function._overloadpacket)
        flops = formula(*args, **given, out_val=result) if formula else 0
        self.operations.append(Operation(flops / 2, sum(map(_bytes, read)) + sum(map(_bytes, written))))
        return result


def is_view(function: Any, given: Any, result: Any) -> bool:
    """Whether what an operation returned lies where its arguments do, and it changed nothing there."""
    return not function._schema.is_mutable and _places(_tensors(result)) <= _places(_tensors(given))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _places(tensors: list[torch.Tensor]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors}


def _bytes(tensor: torch.Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())  # an expanded one holds less


def product(work: Work, clock: Clock) -> int:
    """Multiply-adds of products of two large matrices."""
    side = PRODUCT[work.device]
    a, b = (torch.randn(side, side, device=work.device, dtype=_dtype(work)) for _ in range(2))
    out = torch.empty_like(a)
    return _repeated(work, clock, lambda: torch.mm(a, b, out=out), side**3)


def convolution(work: Work, clock: Clock, *, shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one 3x3 convolution, forward, channels last."""
    channels, side, batch = shape
    kind = {"device": work.device, "dtype": _dtype(work)}
    x = torch.randn(batch, channels, side, side, **kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    w = torch.randn(channels, channels, 3, 3, **kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _repeated(work, clock, lambda: F.conv2d(x, w, padding=1), batch * side**2 * channels**2 * 9)


def bandwidth(work: Work, clock: Clock, *, numbers: int) -> int:
    """Bytes of a = b + s c: two arrays read, one written."""
    a, b, c = (torch.ones(numbers, device=work.device) for _ in range(3))
    return _repeated(work, clock, lambda: torch.add(b, c, alpha=0.5, out=a), 3 * 4 * numbers)


def call(work: Work, clock: Clock) -> int:
    """Operations on one number."""
    a = torch.ones(1, device=work.device)
    return _repeated(work, clock, lambda: a.add_(1.0), 1)


def update(work: Work, clock: Clock, *, name: str) -> int:
    """Updates of fine-tuning."""
    return _repeated(work, clock, prepared(work, name), EPOCH)


CEILINGS: dict[str, tuple[Callable[..., int], dict[str, Any]]] = {
    "matmul": (product, {}),
    **{f"convolution {shape}": (convolution, {"shape": shape}) for shape in SHAPES},
    "memory": (bandwidth, {"numbers": LARGE}),
    "cache": (bandwidth, {"numbers": SMALL}),
    "a call": (call, {}),
}


def prepared(work: Work, name: str) -> Callable[[], object]:
    """A function that runs a preset's fine-tuning for EPOCH updates; it ran once, since the first also allocates."""
    use_threads(1)
    seed_everything(0)
    study, data = _study_and_data(work, name)
    model = study.task.build().to(work.device)
    pruner = Pruner(model, study.pruning, RATIO)
    spec = replace(study.finetune, epochs=1, lr=0.0)  # the work of training, and no way to diverge
    numerics = Numerics(device=work.device, precision=work.precision)

    def run() -> object:
        return train(Run(model, FirstBatches(data, EPOCH), spec, "finetune", 0, numerics, pruner))

    run()
    return run


def count(work: Work, name: str) -> list[Operation]:
    """The operations of EPOCH updates of a preset's fine-tuning."""
    run = prepared(work, name)
    with Counter() as counter:
        run()
    return counter.operations


def limits(operations: list[Operation], work: Work, rates: dict[str, float]) -> dict[str, float]:
    """Bounds on the seconds of one of EPOCH updates, and what was counted of it. rates: of CEILINGS, units a second."""
    best = max(rate for name, rate in rates.items() if name.startswith(("matmul", "convolution")))
    total = sum(operation.multiply_adds for operation in operations)
    bounds = {"arithmetic": total / best, "calls": len(operations) / rates["a call"]}
    for name in ("cache", "memory"):
        bounds[f"in {name}"] = sum(max(o.multiply_adds / best, o.bytes / rates[name]) for o in operations)
    counted = {
        "multiply_adds": total,
        "bytes": float(sum(operation.bytes for operation in operations)),
        "operations": float(len(operations)),
    }
    return {name: value / EPOCH for name, value in (counted | bounds).items()}


def _study_and_data(work: Work, name: str) -> tuple[Study, Any]:
    device = torch.device(work.device)
    if name == "images":
        study, draw = cifar_scaling.paper(), np.random.default_rng(0)
        x = draw.integers(0, 256, (EPOCH * study.finetune.batch_size, 32, 32, 3), dtype=np.uint8)
        y = np.arange(len(x)) % 10
        images = ImageSet(x, y, x[:10], y[:10], classes=10, fingerprint="random", source="random")
        return study, ImageData(study.task, images, device)  # type: ignore[arg-type]
    study = cifar_scaling.quick() if name == "quick images" else wmt14_regime.quick()
    return study, study.task.load(None, device)


def _repeated(work: Work, clock: Clock, once: Callable[[], object], units: int) -> int:
    """Time repetitions of `once`, after some that are not counted; returns the units done."""
    use_threads(1)
    times, spent = 1, 0.0
    while True:
        began = process_time() if work.device == "cpu" else perf_counter()
        _repeat(work, once, times)
        spent = (process_time() if work.device == "cpu" else perf_counter()) - began
        if spent > work.seconds / 4:
            break
        times *= 2
    clock.start()
    _repeat(work, once, times * 4)
    clock.stop()
    return 4 * times * units


def _repeat(work: Work, once: Callable[[], object], times: int) -> None:
    for _ in range(times):
        once()
    if work.device == "cuda":  # the clock waits too; the first guesses of `times` are timed without it
        torch.cuda.synchronize()


def _dtype(work: Work) -> torch.dtype:
    return torch.bfloat16 if work.precision == "bf16" else torch.float32


def _rate(timing: Timing, work: Work) -> float:
    """Units a second: of CPU time on a CPU, since others may take the core away; else by the clock."""
    return timing.cpu_rate if work.device == "cpu" else timing.rate


def main() -> None:
    """Measure all ceilings and all updates in turn, count the updates, print and keep everything."""
    options = _arguments()
    precisions = [options.precision] if options.precision else ["float32"] + ["bf16"] * has_bf16(options.device)
    about = provenance(options.device)
    print(f"{about.get('gpu', about['cpu'])}, torch {about['torch']}, {about['commit']}, {about['date']}\n")
    found: dict[str, Any] = {}
    for precision in precisions:
        work = Work(options.device, precision, options.seconds)
        found[precision] = _measured(work, options.rounds)
    if options.json:
        write_json(options.json, {"benchmark": "roofline", "provenance": about, "device": options.device, **found})


def _measured(work: Work, count_of_rounds: int) -> dict[str, Any]:
    cases = {name: partial(function, work, **given) for name, (function, given) in CEILINGS.items()}
    cases |= {f"update: {name}": partial(update, work, name=name) for name in UPDATES}

    def say(timing: Timing) -> str:
        return f"{_rate(timing, work):12.4g} a second"

    rounds = take_turns(list(cases), lambda name: measure(cases[name]), count_of_rounds, say)
    rates = {name: spread([_rate(timings[name], work) for timings in rounds]) for name in cases}
    ceilings = {name: rates[name]["median"] for name in CEILINGS}
    best = max((name for name in ceilings if name.startswith("convolution")), key=lambda name: ceilings[name])
    print(
        f"{work.device}, {work.precision}: matmul {ceilings['matmul'] / 1e9:.1f} G multiply-adds a second, best "
        f"{best} {ceilings[best] / 1e9:.1f}; memory {ceilings['memory'] / 1e9:.1f} GB/s, cache "
        f"{ceilings['cache'] / 1e9:.1f} GB/s; a call {1e6 / ceilings['a call']:.2f} us\n"
    )
    updates: dict[str, Any] = {}
    rows = []
    for name in UPDATES:
        bounds = limits(count(work, name), work, ceilings)
        seconds = 1 / rates[f"update: {name}"]["median"]
        clock = statistics.median(1 / timings[f"update: {name}"].rate for timings in rounds)
        share = {bound: bounds[bound] / seconds for bound in BOUNDS}
        updates[name] = {"seconds": seconds, "seconds_by_the_clock": clock, "share": share, **bounds}
        rows.append(
            [name, f"{1e3 * seconds:.2f}", f"{1e3 * clock:.2f}", f"{bounds['multiply_adds'] / 1e6:.1f}",
             f"{bounds['bytes'] / 1e6:.1f}", f"{bounds['operations']:.0f}",
             f"{bounds['multiply_adds'] / seconds / 1e9:.1f}", *(f"{share[bound]:.0%}" for bound in BOUNDS)]
        )  # fmt: skip
    print_table(
        ["update", "ms", "ms, clock", "M multiply-adds", "MB", "operations", "G multiply-adds/s", *BOUNDS], rows
    )
    warn_if_busy(rounds)
    return {"ceilings": {name: rates[name] for name in CEILINGS}, "updates": updates, "rounds": kept(rounds)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default=resolve(Numerics(precision="float32")).device, choices=tuple(PRODUCT))
    parser.add_argument("--precision", choices=("float32", "bf16"), help="default: both where bf16 is native")
    parser.add_argument("--seconds", type=float, default=2.0, help="of work a timing aims at, at least")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
