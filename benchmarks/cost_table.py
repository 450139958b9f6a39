"""What the paper presets cost on some machines: hours and dollars from counted work, as tables of docs/cost.md.

    python benchmarks/cost_table.py                                   # seconds; needs neither data nor network
    python benchmarks/cost_table.py --machine "my server" 3e12 2e13 0.9

A machine is a name, the multiply-adds a second it keeps up on images and on text, and dollars an hour. Work is counted
by twore.study.cost, as `--dry-run` counts it; the rate is here the machine's, for all that runs on it at once, and what
starting operations costs is taken to be in it. Not counted: metrics of checkpoints (seconds each), idle time. The rates
below are assumptions (docs/cost.md says from what), so a person's own belong in their place.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from twore.recipes import cifar_scaling, wmt14_regime
from twore.study.cost import Speed, estimate, pace_at, size_of

PRESETS = {"cifar_scaling": cifar_scaling.paper, "wmt14_regime": wmt14_regime.paper}


@dataclass(frozen=True)
class Machine:
    """What can be rented. rates: multiply-adds a second on images and on text, all workers together."""

    name: str
    images: float
    text: float
    dollars: float  # an hour

    def rate(self, recipe: str) -> float:
        """Multiply-adds a second of a recipe."""
        return self.images if recipe == "cifar_scaling" else self.text


MACHINES = (  # assumptions, every one; docs/cost.md says from what
    Machine("32 CPU cores", 1.0e12, 1.0e12, 1.6),
    Machine("A10G", 3.0e12, 1.4e13, 1.0),
    Machine("L4", 1.5e12, 1.5e13, 0.8),
    Machine("A100", 1.0e13, 4.0e13, 4.1),
    Machine("H100", 1.7e13, 5.0e13, 6.9),
    Machine("H200", 2.4e13, 5.0e13, 10.0),
)


@dataclass(frozen=True)
class Work:
    """What part of a study amounts to. passes: of one example forward and back."""

    name: str
    trainings: int
    cells: int
    passes: float
    multiply_adds: float


def works(recipe: str) -> list[Work]:
    """A row for each setting of a recipe's paper preset, and for all of them when there are several."""
    study = PRESETS[recipe]()
    unit = Speed(rate=1.0, overhead=0.0, source="a multiply-add a second: seconds are multiply-adds")
    settings = {trajectory.setting: trajectory.study for trajectory in study.trajectories}
    counted = estimate(study, partial(pace_at, unit)).rows
    varied = [name for name in counted[0].columns if len({row.columns[name] for row in counted}) > 1]
    rows = []
    for row, setting in zip(counted, settings.values(), strict=True):
        name = ", ".join(f"{column} {row.columns[column]:g}" for column in varied) or study.name
        epochs = row.trainings * setting.dense.epochs + row.cells * setting.finetune.epochs
        passes = epochs * (size_of(setting.task).train or 0)
        rows.append(Work(name, row.trainings, row.cells, passes, row.seconds or 0.0))
    if len(rows) == 1:
        return rows
    trainings, cells = sum(row.trainings for row in rows), sum(row.cells for row in rows)
    return [*rows, Work("all", trainings, cells, sum(r.passes for r in rows), sum(r.multiply_adds for r in rows))]


def work_table(recipe: str) -> str:
    """What is to be done, a row a setting."""
    lines = ["| setting | trainings | cells | passes | multiply-adds |", "|---|---|---|---|---|"]
    for work in works(recipe):
        lines.append(
            f"| {work.name} | {work.trainings} | {work.cells:,} | {work.passes / 1e6:,.0f} M | "
            f"{work.multiply_adds / 1e15:,.1f} x 10^15 |"
        )
    return "\n".join(lines)


def price_table(machines: Sequence[Machine] = MACHINES) -> str:
    """Hours and dollars of both recipes on each machine."""
    first, text = works("cifar_scaling"), works("wmt14_regime")[-1]
    parts = {"standard diagram": (first[0], "cifar_scaling"), "all images": (first[-1], "cifar_scaling"),
             "text": (text, "wmt14_regime")}  # fmt: skip
    lines = [f"| machine | rate, images | rate, text | $/h | {' | '.join(parts)} |", "|---|---|---|---|---|---|---|"]
    for machine in machines:
        hours = [work.multiply_adds / machine.rate(recipe) / 3600 for work, recipe in parts.values()]
        cells = [f"{_hours(h)}, ${_short(h * machine.dollars)}" for h in hours]
        rates = f"{machine.images / 1e12:g} T | {machine.text / 1e12:g} T"
        lines.append(f"| {machine.name} | {rates} | {machine.dollars:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def _short(dollars: float) -> str:
    return f"{dollars:.1f}" if dollars < 10 else f"{dollars:,.0f}"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--machine", nargs=4, action="append", metavar=("NAME", "IMAGES", "TEXT", "DOLLARS"), default=[]
    )
    machines = [Machine(name, *map(float, numbers)) for name, *numbers in parser.parse_args().machine]
    for recipe in PRESETS:
        print(f"{recipe}, preset paper\n\n{work_table(recipe)}\n")
    print(price_table(machines or MACHINES))


if __name__ == "__main__":
    main()
