"""What an executor costs beyond the work: seconds a cell, and how well two workers share.

    python benchmarks/executors.py [--rounds 3] [--json benchmarks/results/executors.json]

The task burns a fixed CPU time at every epoch of fine-tuning and does next to nothing else, so a cell's work is known.
A study is run in a process and a folder of its own. What a cell costs is the time from the record of cell number
FIRST, in the order in which they were written, to that of the last, divided by the cells in between: free of imports,
of the start of workers (for which they have time while the dense run burns) and of the dense run. What exceeds the work
is the overhead: handing out the job, building the model, masks, scores, records and their way to the disk.

    overhead     serial, process and ray with one worker: seconds a cell beyond the burnt ones
    efficiency   process and ray: a cell's seconds with one worker / (2 x its seconds with two)

Targets: at most 30 ms a cell, and at least 0.9 (medians). Ray is left out where it is not installed. The cores that
others kept busy before each round are measured, and said when it was too much. Memory is the most that the run and all
processes it started held at once (PSS: what several share is counted once), looked at twice a second in one more run of
each case, so that looking does not disturb the timing.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from common import QUIET, busy_cores, in_words, positive, print_table, provenance, spread, write_json
from memory import family_bytes
from torch import Tensor, nn

from twore.study import Study, run_study
from twore.training import Numerics, Training

OVERHEAD, EFFICIENCY = 0.030, 0.9  # seconds a cell, share: what this project asks of itself
EXECUTORS = ("serial", "process", "ray")
FIRST, CELLS = 8, 72
LOOK = 0.5  # seconds between two looks at the memory
DENSE = 150  # epochs of the dense run: by its end all workers have started
RATIOS = tuple(round(0.01 + 0.0125 * i, 4) for i in range(CELLS))


@dataclass(frozen=True)
class BurnTask:
    """A tiny network whose epochs cost `burn` seconds of CPU time."""

    score_label: ClassVar[str] = "accuracy (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ()
    burn: float = 0.2

    def known_fingerprint(self) -> str | None:
        """The same for everybody."""
        return "burn"

    def load(self, folder: Path | None, device: torch.device) -> BurnData:
        """Random points."""
        return BurnData(self.burn)

    def build(self) -> nn.Module:
        """Two layers."""
        return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))


class BurnData:
    """64 points in 4 classes."""

    def __init__(self, burn: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(64, 16, generator=generator), torch.arange(64) % 4
        self.burn, self.fingerprint, self.splits = burn, "burn", ("test",)

    def updates(self, batch_size: int) -> int:
        """One update an epoch."""
        return 1

    def epoch(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Burn, then the one batch."""
        until = time.thread_time() + self.burn
        while time.thread_time() < until:
            pass
        yield self.x, self.y

    def plain(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training set."""
        yield self.x, self.y

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """Summed over the batch."""
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])

    def outputs(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Probabilities."""
        return model(batch[0]).float().softmax(1)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Accuracy in percent."""
        return {"score": 100.0 * float((model(self.x).argmax(1) == self.y).double().mean())}

    def describe(self) -> dict[str, Any]:
        """Where the data come from."""
        return {"source": "generated", "train": 64}


@dataclass(frozen=True)
class Case:
    """One way to run the study."""

    executor: str
    workers: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.executor} x {self.workers}"


def make_study(burn: float) -> Study:
    """One dense run, one checkpoint, CELLS ratios, one fine-tune seed, one epoch; no probes, which read batches."""
    training = Training(epochs=1, batch_size=64, drops=())
    return Study(
        task=BurnTask(burn), name="executors", dense=replace(training, epochs=DENSE), finetune=training,
        checkpoints=(DENSE,), ratios=RATIOS, finetune_seeds=(0,), probe_batches=0, permutations=1,
        numerics=Numerics("cpu", "float32"),
    )  # fmt: skip


def seconds_a_cell(case: Case, burn: float) -> float:
    """Of one study in a fresh process, from the times at which its cells were written."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(_command(case, folder, burn), check=True)
        written = sorted(path.stat().st_mtime_ns for path in (Path(folder) / "store" / "cells").rglob("*.json"))
    assert len(written) == CELLS
    return (written[-1] - written[FIRST - 1]) * 1e-9 / (CELLS - FIRST)


def peak_memory(case: Case, burn: float) -> int:
    """Bytes held at once by one study's processes, at most."""
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(_command(case, folder, burn)) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, family_bytes(process.pid))
            time.sleep(LOOK)
    if process.returncode:
        raise RuntimeError(f"the study of {case.name} failed: its own message is above")
    return peak


def main() -> None:
    """Measure all cases in turn, print and keep the numbers."""
    options = _arguments()
    if options.run:
        executor, workers, folder = options.run
        results = run_study(make_study(options.burn), folder, executor=executor, workers=int(workers), quiet=True)
        assert len(results.cells) == CELLS, results.failures
        return
    about = provenance()
    present = [name for name in EXECUTORS if name != "ray" or importlib.util.find_spec("ray") is not None]
    cases = [Case(name, 1) for name in present] + [Case(name, 2) for name in present if name != "serial"]
    print(f"{in_words(about)}\n")
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    others = []
    for number in range(options.rounds):
        others.append(busy_cores())
        for case in cases if number % 2 == 0 else reversed(cases):
            found[case.name].append(seconds_a_cell(case, options.burn))
            print(f"round {number + 1}  {case.name:12}{found[case.name][-1]:8.3f} s a cell", flush=True)
    memory = {case.name: peak_memory(case, options.burn) for case in cases}
    measures: dict[str, dict[str, Any]] = {}
    for name in present:
        one = found[f"{name} x 1"]
        overhead = spread([seconds - options.burn for seconds in one])
        met = overhead["median"] <= OVERHEAD
        measures[f"overhead, {name}"] = overhead | {"unit": "s a cell", "target": OVERHEAD, "met": met}
        if name != "serial":
            shared = spread([a / (2 * b) for a, b in zip(one, found[f"{name} x 2"])])
            met = shared["median"] >= EFFICIENCY
            measures[f"efficiency, {name}"] = shared | {"unit": "share", "target": EFFICIENCY, "met": met}
    rows = [
        [name, *(f"{m[part]:.3f}" for part in ("min", "median", "max")), m["unit"],
         f"{m['target']} {'met' if m['met'] else 'MISSED'}"]
        for name, m in measures.items()
    ]  # fmt: skip
    print()
    print_table(["measure", "min", "median", "max", "unit", "target"], rows)
    print_table(["peak memory", "MB"], [[name, f"{peak / 1e6:,.0f}"] for name, peak in memory.items()])
    if max(others) > QUIET:
        print("Other processes kept the machine busy before a round: these numbers are not worth keeping.\n")
    if options.json:
        settings = {"burn": options.burn, "cells": CELLS, "first": FIRST, "cores_of_others": others}
        result = {"benchmark": "executors", "provenance": about, "settings": settings, "measures": measures}
        write_json(options.json, result | {"seconds_a_cell": found, "peak_bytes": memory})


def _command(case: Case, folder: str, burn: float) -> list[str]:
    return [sys.executable, __file__, "--run", case.executor, str(case.workers), folder, "--burn", str(burn)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=3, help="measurements of each case")
    parser.add_argument("--burn", type=float, default=0.2, metavar="SECONDS", help="CPU time of a cell's work")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
