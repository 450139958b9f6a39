"""Where the time of a fine-tuning update goes: each of its operations called alone, beside the whole update.

    python benchmarks/roofline_calls.py --json benchmarks/results/roofline_calls.json     # on a quiet machine, minutes

`roofline.py` gives bounds from the device's ceilings. This script says what lies between such a bound and a whole
update. It takes down every operation that an update dispatches (forward, loss, backward, optimiser, masks) with its
shapes and memory formats, and then, in turn with whole updates, calls each alone, again and again, on copies of its
inputs. So, in seconds of one update:
- arithmetic        multiply-adds over the best ceiling, as in roofline.py (its JSON has it; not repeated here)
- fastest calls     sum over operations of the fastest call: what these kernels need at these shapes at their best
- calls             the same sum of medians: what they take on this machine as it is
- fastest update    the fastest of the updates timed, EPOCH at once, through the real training loop
- update            the median one; less `calls` it is what autograd, Python and cold caches cost

By the clock, on one thread of a CPU, so only a quiet machine will do.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from common import QUIET, busy_cores, positive, print_table, provenance, write_json
from memory import peak_bytes
from roofline import EPOCH, UPDATES, Work, is_view, prepared
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

WORK = Work("cpu", "float32", 0.0)
LEAST, LONGEST = 3, 0.02  # calls of an operation a round, and the seconds at which it ends


@dataclass
class Operation:
    """One operation at one set of shapes."""

    function: Callable[..., Any]
    args: Any
    kwargs: dict[str, Any]
    count: int = 0  # how often EPOCH updates do it
    seconds: list[float] = field(default_factory=list)  # of each call alone

    @property
    def name(self) -> str:
        """As torch names it, without the overload."""
        return str(self.function).removeprefix("aten.").partition(".")[0]


class Recorder(TorchDispatchMode):
    """Takes down the operations that torch dispatches while it is active, with copies of their inputs; no views."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[Any, Operation] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        leaves, structure = tree_flatten((args, given))
        key = (function, str(structure), *map(_signature, leaves))
        if key not in self.operations:  # copied before the call: it may change its inputs
            self.operations[key] = Operation(function, tree_map(_copied, args), tree_map(_copied, given))
        result = function(*args, **given)
        if is_view(function, (args, given), result):
            self.operations.pop(key)
        else:
            self.operations[key].count += 1
        return result


def _signature(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.stride(), leaf.dtype
    return repr(leaf)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def recorded(run: Callable[[], object]) -> list[Operation]:
    """The operations of EPOCH updates."""
    with Recorder() as recorder:
        run()
    return list(recorder.operations.values())


@torch.no_grad()
def call_alone(operation: Operation) -> None:
    """Call it for a while, and keep the time of each call but the first."""
    function, args, kwargs = operation.function, operation.args, operation.kwargs
    function(*args, **kwargs)
    began, calls = perf_counter(), 0
    while calls < LEAST or perf_counter() - began < LONGEST:
        start = perf_counter()
        function(*args, **kwargs)
        operation.seconds.append(perf_counter() - start)
        calls += 1


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of one update: whole, and as the sum of its operations, by kind."""
    run = prepared(WORK, name)
    operations, updates = recorded(run), []
    for _ in range(rounds):
        for operation in operations:
            call_alone(operation)
        start = perf_counter()
        run()
        updates.append((perf_counter() - start) / EPOCH)
    kinds: dict[str, dict[str, float]] = defaultdict(lambda: {"operations": 0.0, "fastest calls": 0.0, "calls": 0.0})
    for operation in operations:
        kind, share = kinds[operation.name], operation.count / EPOCH
        kind["operations"] += share
        kind["fastest calls"] += share * min(operation.seconds)
        kind["calls"] += share * statistics.median(operation.seconds)
    whole = {part: sum(kind[part] for kind in kinds.values()) for part in ("operations", "fastest calls", "calls")}
    whole |= {"fastest update": min(updates), "update": statistics.median(updates)}
    return whole | {"kinds": dict(kinds), "updates": updates}


def main() -> None:
    """Measure the updates one after the other, print and keep everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=positive, default=20)
    parser.add_argument("--updates", nargs="+", choices=UPDATES, default=list(UPDATES))
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    options = parser.parse_args()
    about, before = provenance(), busy_cores()
    print(f"{about['cpu']}, torch {about['torch']}, {about['commit']}, {about['date']}\n")
    found = {name: measured(name, options.rounds) for name in options.updates}
    others = max(before, busy_cores())
    for name, whole in found.items():
        kinds = sorted(whole["kinds"].items(), key=lambda item: -item[1]["calls"])
        rows = [_row(kind, parts) for kind, parts in kinds if parts["calls"] > 0.01 * whole["calls"]]
        print_table([f"{name}, ms", "operations", "fastest calls", "calls"], [*rows, _row("all", whole)])
        print(f"update: fastest {1e3 * whole['fastest update']:.2f} ms, median {1e3 * whole['update']:.2f} ms\n")
    if others > QUIET:
        print(f"Other processes kept {others:.1f} cores busy before or after: these numbers are not worth keeping.\n")
    peak = peak_bytes()
    print(f"peak memory {peak / 1e6:,.0f} MB, with the tensors kept to call every operation alone\n")
    if options.json:
        result = {"benchmark": "roofline_calls", "provenance": about, "others": others, "peak_bytes": peak}
        write_json(options.json, result | found)


def _row(name: str, parts: dict[str, float]) -> list[str]:
    times = (f"{1e3 * parts[part]:.2f}" for part in ("fastest calls", "calls"))
    return [name, f"{parts['operations']:.0f}", *times]


if __name__ == "__main__":
    main()
