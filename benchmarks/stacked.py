"""Stacked fine-tuning against one model after the other: models' updates a second, on one device.

    python benchmarks/stacked.py [--device cuda] [--json benchmarks/results/stacked.json]      # a few minutes
    python benchmarks/stacked.py --images --widths 1 4 16 64 --precision bf16 --depth 20       # CIFAR shapes only
    python benchmarks/stacked.py --dense                              # dense runs: each model has batches of its own

Cases: a PreResNet (convolutions, folded: one grouped convolution for all models), the same mapped (torch.func.vmap over
the task's loss, float32 only), and a small Transformer (mapped). Each at the widths asked for, all with masks held, SGD
or Adam, and the real training loop; `single` is the ordinary run of one model. Inputs are random and the same for all.

Fair: every timing is a fresh process, its first epoch is not counted; all cases of a round run one after the other, and
a ratio is taken within its round. A ratio above 1 means that stacking pays there. No target: the widths are measured
where a study is created (numerics.stack 0), and on a CPU the answer is often 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import Clock, Timing, judged, kept, measure, positive, provenance, show, take_turns, write_json
from torch import Tensor, nn

from twore.models import PreResNet, transformer_base
from twore.models.transformer import teacher_forced
from twore.pruning.spec import Pruning
from twore.seeds import seed_everything
from twore.training import REPORT_FINETUNE, Epoch, Numerics, Pruner, Run, Stack, StackedData, StackedPruner, train
from twore.training.numerics import resolve, use_threads

RATIO, CLASSES, VOCABULARY = 0.9, 10, 800
MODELS = ("folded", "mapped", "transformer")


@dataclass(frozen=True)
class Workload:
    """What every case does; the fields are the options."""

    device: str
    precision: str
    depth: int
    side: int  # pixels
    batch: int  # images
    updates: int  # an epoch
    d_model: int
    dense: bool


class Batches:
    """A TaskData of random inputs; one batch, again and again."""

    fingerprint, splits = "random", ("test",)

    def __init__(self, work: Workload, *, images: bool) -> None:
        draw = torch.Generator().manual_seed(0)
        self._images, self._count = images, work.updates
        if images:
            x = torch.randn(work.batch, 3, work.side, work.side, generator=draw)
            x = x.to(work.device, memory_format=torch.channels_last)
            y = torch.randint(CLASSES, (work.batch,), generator=draw)
        else:  # 64 pairs of 14 tokens a side, about the batches of the preset quick
            x = torch.randint(4, VOCABULARY, (64, 14), generator=draw).to(work.device)
            y = torch.randint(4, VOCABULARY, (64, 14), generator=draw)
        self.batch = x, y.to(work.device)

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return self._count

    def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
        """The one batch."""
        return (self.batch for _ in range(self._count))

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """Summed cross-entropy."""
        x, y = batch
        if self._images:
            return F.cross_entropy(model(x).float(), y, reduction="sum"), len(y)
        logits = teacher_forced(model, x, y).float()  # type: ignore[arg-type]
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"), y.numel()


def single(work: Workload, clock: Clock, *, kind: str, width: int) -> int:
    """One model after the other: a single one is timed, and stands for all."""
    model, data, spec, numerics = _made(work, kind, 1)
    pruner = None if work.dense else Pruner(model[0], Pruning(kinds=_kinds(kind)), RATIO)
    return _timed(Run(model[0], data, spec, "finetune", 0, numerics, pruner), clock, work, 1)  # type: ignore[arg-type]


def stacked(work: Workload, clock: Clock, *, kind: str, width: int) -> int:
    """`width` models as one."""
    models, data, spec, numerics = _made(work, kind, width)
    if kind == "mapped":
        for model in models:
            model.channelwise = False  # type: ignore[assignment]
    pruners = [] if work.dense else [Pruner(model, Pruning(kinds=_kinds(kind)), RATIO) for model in models]
    stack = Stack(models, bf16=numerics.precision == "bf16")
    holder = StackedPruner(stack, pruners) if pruners else None
    both = StackedData(data, stack)  # type: ignore[arg-type]
    seed = tuple(range(width)) if work.dense else 0
    return _timed(Run(stack.module, both, spec, "finetune", seed, numerics, holder, width=width), clock, work, width)


def _made(work: Workload, kind: str, width: int) -> tuple[list[nn.Module], Batches, Any, Numerics]:
    use_threads(1)
    models: list[nn.Module] = []
    for seed in range(width):
        seed_everything(seed)
        if kind == "transformer":
            sizes = {"d_model": work.d_model, "layers": 2, "heads": 4, "ffn": 2 * work.d_model}
            model: nn.Module = transformer_base(VOCABULARY, **sizes)
        else:
            model = PreResNet(work.depth).to(memory_format=torch.channels_last)
        models.append(model.to(work.device))
    adam = {"optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0}
    spec = replace(REPORT_FINETUNE, epochs=2, **(adam if kind == "transformer" else {}))
    data = Batches(work, images=kind != "transformer")
    return models, data, spec, Numerics(device=work.device, precision=work.precision)


def _timed(run: Run, clock: Clock, work: Workload, width: int) -> int:
    def after_epoch(record: Epoch) -> dict[str, float]:
        if record.epoch == 1:
            clock.start()
        return {}

    train(run, after_epoch=after_epoch)
    clock.stop()
    return work.updates * width


def _kinds(kind: str) -> tuple[str, ...]:
    return ("linear",) if kind == "transformer" else ("conv",)


def main() -> None:
    """Measure every case at every width, and print ratios to the single run of the same model."""
    options = _arguments()
    work = Workload(
        options.device, options.precision, options.depth, options.side, options.batch, options.updates, options.d_model,
        options.dense,
    )  # fmt: skip
    about = provenance(work.device)
    kinds = ["folded"] if options.images else list(MODELS)
    if work.precision == "bf16":
        kinds = [kind for kind in kinds if kind != "mapped"]  # refused: see twore.training.stacking
    cases = {f"{kind} {width or 'single'}": (kind, width) for kind in kinds for width in (0, *options.widths)}
    print(f"{work}, {about.get('gpu', about['cpu'])}, torch {about['torch']}, {about['commit']}, {about['date']}\n")

    def run(name: str) -> Timing:
        kind, width = cases[name]
        return measure(partial(stacked if width else single, work, kind=kind, width=width))

    def updates(timing: Timing) -> str:
        return f"{timing.rate:9.1f} updates of a model a second"

    rounds = take_turns(list(cases), run, options.rounds, updates)
    ratios: dict[str, dict[str, Any]] = {}
    for kind, width in cases.values():
        if width:
            pairs = [(timings[f"{kind} {width}"], timings[f"{kind} single"]) for timings in rounds]
            ratios[f"{kind} {width} / single"] = judged([a.rate / b.rate for a, b in pairs])
            ratios[f"{kind} {width} / single, a CPU-second"] = judged([a.cpu_rate / b.cpu_rate for a, b in pairs])
    show("updates/s", rounds, ratios)
    if options.json:
        result = {"benchmark": "stacked", "provenance": about, "settings": asdict(work)}
        write_json(options.json, result | {"ratios": ratios, "rounds": kept(rounds)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    device = resolve(Numerics(precision="float32")).device
    parser.add_argument("--device", default=device, help="cpu or cuda; default: what this machine has")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    widths = [1, 2, 4, 8, 16, 32, 64]
    parser.add_argument("--widths", type=positive, nargs="+", default=widths, help="models in a stack")
    parser.add_argument("--images", action="store_true", help="the folded PreResNet alone")
    parser.add_argument("--dense", action="store_true", help="no masks, and batches of each model's own")
    parser.add_argument("--depth", type=int, default=8, help="of the PreResNet, 6n+2")
    parser.add_argument("--side", type=positive, default=32, help="of the images, pixels")
    parser.add_argument("--batch", type=positive, default=64, help="images")
    parser.add_argument("--d-model", type=positive, default=64, help="of the Transformer")
    parser.add_argument("--updates", type=positive, default=20, help="in an epoch; the second of two counts")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
