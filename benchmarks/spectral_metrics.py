"""Spectral metrics of a model's weights: twore against WeightWatcher, on one CPU thread.

    python benchmarks/spectral_metrics.py [--model preresnet20] [--json benchmarks/results/spectral_metrics.json]
    python benchmarks/spectral_metrics.py --model transformer-base --rounds 1     # some 10 minutes
    python benchmarks/spectral_metrics.py --model transformer-reduced --rounds 1  # the same shapes, 33 of 97 layers

Compared, on the same weights (those of a fresh model; speed does not depend on what they are):
- weightwatcher       WeightWatcher(model).analyze(randomize=True): spectra, one permutation for rand_distance, power
                      laws, a Marchenko-Pastur fit of the permuted weights. Convolutions and linear layers only.
- 1 permutation       spectral_metrics(model, permutations=1, fits=False): what analyze draws for its distance. Target.
- 10 permutations     the same with twore's default, which gives a standard error and a noise floor.
- everything          1 permutation and all fits: power laws, E-TPL, EXP, Marchenko-Pastur.
- weightwatcher, fits its power-law fits alone, of spectra that are there already.
- power laws          fit_power_laws of the same spectra. Target.

Fair: every timing is a fresh process, held to one thread in torch, BLAS and OpenMP alike; imports, the model and a
first call on a small matrix are not counted; all cases of a round run one after the other (the order turns each round),
a ratio is taken within its round. WeightWatcher's prints and logs are dropped, not written. Numbers of a busy machine
mean nothing: what other processes used is measured, and said when it was too much.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    Clock,
    Timing,
    judged,
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
from threadpoolctl import threadpool_limits
from torch import nn

from twore.metrics.gram import eigenvalues
from twore.metrics.layers import spectral_weights
from twore.metrics.powerlaw import fit_power_laws
from twore.metrics.spectra import spectral_metrics
from twore.metrics.weightwatcher_engine import contained
from twore.models import PreResNet, transformer_base

LEAST_SECONDS = 2.0  # a short case is repeated for about so long; our choice
TARGETS = {  # ratio -> model -> what this project asks of itself
    "1 permutation / weightwatcher": {"preresnet20": 200.0, "transformer-base": 60.0},
    "power laws / weightwatcher, fits": {"preresnet20": 20.0, "transformer-base": 20.0},
}
RATIOS = (
    ("1 permutation", "weightwatcher"),
    ("10 permutations", "weightwatcher"),
    ("everything", "weightwatcher"),
    ("power laws", "weightwatcher, fits"),
)


def reduced_transformer() -> nn.Module:
    """The matrix shapes of Transformer-base, fewer times: 2+2 layers, 33 linear layers, vocabulary 2,000."""
    return transformer_base(2000, layers=2)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "preresnet20": partial(PreResNet, depth=20),
    "transformer-base": partial(transformer_base, 32_000),  # 97 linear layers, nothing tied
    "transformer-reduced": reduced_transformer,
}


@dataclass(frozen=True)
class Workload:
    """What every case measures: a model by its name, or only layers that match a pattern."""

    model: str
    layers: tuple[str, ...] | None = None

    def weights(self) -> dict[str, torch.Tensor]:
        """Names and weights, the same in every case."""
        torch.manual_seed(0)
        return spectral_weights(MODELS[self.model](), layers=self.layers)


def analyze(work: Workload, clock: Clock) -> int:
    """WeightWatcher as its users call it, on a model that holds nothing but these weights."""
    weights = work.weights()
    with threadpool_limits(1), contained() as weightwatcher:
        torch.set_num_threads(1)
        _quietly(weightwatcher, _holder({"warm": torch.randn(12, 12)}))
        model = _holder(weights)
        clock.start()
        _quietly(weightwatcher, model)
        clock.stop()
    return 1


def ours(work: Workload, clock: Clock, *, permutations: int, fits: bool) -> int:
    """twore's pass over the same weights."""
    weights = work.weights()
    run = partial(spectral_metrics, permutations=permutations, fits=fits)
    return _repeated(clock, partial(run, {"warm": torch.randn(12, 12)}), partial(run, weights))


def their_fits(work: Workload, clock: Clock) -> int:
    """WeightWatcher's power-law fits alone."""
    spectra = _spectra(work)
    with threadpool_limits(1), contained():
        from weightwatcher.WW_powerlaw import pl_fit

        torch.set_num_threads(1)

        def fit() -> None:
            for evals in spectra:
                pl_fit(data=evals[evals > 1e-5])  # as its fit_powerlaw does

        return _repeated(clock, partial(pl_fit, data=np.linspace(1, 2, 40)), fit)


def our_fits(work: Workload, clock: Clock) -> int:
    """twore's power-law fits of the same spectra."""
    spectra = _spectra(work)
    return _repeated(clock, partial(fit_power_laws, [np.linspace(1, 2, 40)]), partial(fit_power_laws, spectra))


CASES: dict[str, Callable[..., int]] = {
    "weightwatcher": analyze,
    "1 permutation": partial(ours, permutations=1, fits=False),
    "10 permutations": partial(ours, permutations=10, fits=False),
    "everything": partial(ours, permutations=1, fits=True),
    "weightwatcher, fits": their_fits,
    "power laws": our_fits,
}


def main() -> None:
    """Measure all cases in turn, print seconds and ratios, and keep everything."""
    options = _arguments()
    work = Workload(options.model, tuple(options.layers) if options.layers else None)
    about = provenance() | {"weightwatcher": version("weightwatcher"), "numpy": np.__version__}
    chosen = [name for name in CASES if options.cases is None or name in options.cases]
    shapes = [tuple(weight.shape) for weight in work.weights().values()]
    print(f"{work.model}: {len(shapes)} layers, {sum(int(np.prod(s)) for s in shapes):,} weights")
    print(", ".join(str(about[name]) for name in ("cpu", "torch", "weightwatcher", "commit", "date")) + "\n")

    def run(name: str) -> Timing:
        return measure(partial(CASES[name], work))

    def seconds(timing: Timing) -> str:
        return f"{1 / timing.rate:12.4f} s {1 / timing.cpu_rate:12.4f} s of CPU"

    rounds = take_turns(chosen, run, options.rounds, seconds)
    ratios = _ratios(rounds, work.model if work.layers is None else "")
    _show(rounds, ratios)
    if options.json:
        settings = {"model": work.model, "layers": work.layers, "shapes": shapes, "threads": 1}
        result = {"benchmark": "spectral_metrics", "provenance": about, "settings": settings}
        write_json(options.json, result | {"ratios": ratios, "rounds": kept(rounds)})


def _ratios(rounds: list[dict[str, Timing]], model: str) -> dict[str, dict[str, Any]]:
    """How many times faster, round by round: by wall time (judged) and by CPU time, which a busy machine blurs less."""
    ratios: dict[str, dict[str, Any]] = {}
    for fast, slow in (pair for pair in RATIOS if set(pair) <= set(rounds[0])):
        name = f"{fast} / {slow}"
        target = TARGETS.get(name, {}).get(model)
        ratios[name] = judged([timings[fast].rate / timings[slow].rate for timings in rounds], target)
        ratios[f"{name}, CPU time"] = judged([timings[fast].cpu_rate / timings[slow].cpu_rate for timings in rounds])
    return ratios


def _show(rounds: list[dict[str, Timing]], ratios: dict[str, dict[str, Any]]) -> None:
    rows = []
    for name in rounds[0]:
        seconds = spread([1 / timings[name].rate for timings in rounds])
        others = max(timings[name].others for timings in rounds)
        peak = max(timings[name].peak_bytes for timings in rounds) / 1e6
        rows.append(
            [name, *(f"{seconds[part]:.4f}" for part in ("min", "median", "max")), f"{peak:,.0f}", f"{others:.2f}"]
        )
    print_table(["seconds a model", "min", "median", "max", "peak MB", "cores of others"], rows)
    rows = []
    for name, ratio in ratios.items():
        verdict = "" if ratio["target"] is None else f"{ratio['target']:.0f} {'met' if ratio['met'] else 'MISSED'}"
        rows.append([name, *(f"{ratio[part]:.1f}" for part in ("min", "median", "max")), verdict])
    print_table(["times faster", "min", "median", "max", "target"], rows)
    warn_if_busy(rounds)


def _repeated(clock: Clock, warm: Callable[[], Any], run: Callable[[], Any]) -> int:
    """Run once or, where it is short, as often as fills LEAST_SECONDS; returns how often."""
    with threadpool_limits(1):
        torch.set_num_threads(1)
        warm()
        times = 0
        clock.start()
        while times == 0 or time.monotonic() - clock.started < LEAST_SECONDS:
            run()
            times += 1
        clock.stop()
    return times


def _spectra(work: Workload) -> list[np.ndarray]:
    """Eigenvalues in WeightWatcher's conventions, of the layers that it fits (8 eigenvalues or more)."""
    spectra = [eigenvalues(w).numpy() * (0.5 if w.ndim > 2 else 1.0) for w in work.weights().values()]
    return [evals for evals in spectra if len(evals) >= 8]


def _holder(weights: dict[str, torch.Tensor]) -> nn.Module:
    """A model with these weights and nothing else: no embeddings, no position tables."""
    model = nn.Sequential()
    for weight in weights.values():
        layer = nn.Conv2d(1, 1, 1, device="meta") if weight.ndim == 4 else nn.Linear(1, 1, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), None
        model.append(layer)
    return model


def _quietly(weightwatcher: Any, model: nn.Module) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        weightwatcher.WeightWatcher(model=model).analyze(randomize=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(MODELS), default="preresnet20")
    parser.add_argument("--layers", nargs="+", help="only layers that match these patterns; no target is judged then")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="only these; a ratio needs both its sides")
    parser.add_argument("--rounds", type=positive, default=3, help="each measures every case once")
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
