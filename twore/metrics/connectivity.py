"""Linear mode connectivity: what happens to loss and score on the straight line between two models.

Two networks fine-tuned from one pruned checkpoint lie in one basin when the line between them has no barrier (Frankle
et al. 2020); in the three-regime picture (Zhou et al. 2023) a barrier marks the heavy side of the boundary.

    result = mode_connectivity(a, b, lambda model: data.evaluate(model, "test"), batches=batches)
    result.loss_barrier, result.score_barrier, result.path

Masks: an entry that is zero in both models is zero along the whole line, so the line never leaves the union of the two
masks, and no mask is applied. Models of one mask keep its density; where the masks differ the inner points are denser
than the ends.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from twore.metrics.registry import register
from twore.pruning import recalibrate_batchnorm

Evaluate = Callable[[nn.Module], Mapping[str, float]]
Forward = Callable[[nn.Module, Any], Any]

POINTS = 11  # both ends included; our choice (Frankle et al. take 30): a barrier is wide


@dataclass(frozen=True, eq=False)
class Connectivity:
    """The line between two models and its barriers.

    loss_barrier   the most that the loss rises above the chord between its two end values, >= 0
    score_barrier  the most that the score falls below its chord, in score points, >= 0
    loss_lmc       Yang et al. 2021, eq. 2: mean loss of the ends minus the loss furthest from it on the line; 0 means
                   connected, below 0 a barrier, above 0 ends that are badly trained
    score_lmc      the same of the error: the score furthest from the mean score of the ends, minus that mean
    path           DataFrame[t, loss, score, ...]: what `evaluate` says at t, from 0 (the first model) to 1 (the second)
    """

    loss_barrier: float
    score_barrier: float
    loss_lmc: float
    score_lmc: float
    path: pd.DataFrame


@register(
    "loss_barrier",
    takes="model pair, evaluate",
    unit="units of the loss",
    low=0.0,
    high=math.inf,
    better="low",
    source="error barrier of linear mode connectivity: Frankle et al. 2020, measured from the chord (Entezari 2022)",
    cost="`points` evaluations, each after a BatchNorm re-estimate",
)
def loss_barrier(
    a: nn.Module,
    b: nn.Module,
    evaluate: Evaluate,
    *,
    batches: Iterable[Any] | None = None,
    forward: Forward | None = None,
    points: int = POINTS,
) -> float:
    """The most that the loss rises above the chord on the line from a to b; 0 for none. See `mode_connectivity`."""
    return mode_connectivity(a, b, evaluate, batches=batches, forward=forward, points=points).loss_barrier


@register(
    "score_barrier",
    takes="model pair, evaluate",
    unit="score points",
    low=0.0,
    high=math.inf,
    better="low",
    source="as loss_barrier, of the score: how far it falls below the chord",
    cost="as loss_barrier; both from one pass with mode_connectivity",
)
def score_barrier(
    a: nn.Module,
    b: nn.Module,
    evaluate: Evaluate,
    *,
    batches: Iterable[Any] | None = None,
    forward: Forward | None = None,
    points: int = POINTS,
) -> float:
    """The most that the score falls below the chord on the line from a to b; 0 for none. See `mode_connectivity`."""
    return mode_connectivity(a, b, evaluate, batches=batches, forward=forward, points=points).score_barrier


@torch.no_grad()
def mode_connectivity(
    a: nn.Module,
    b: nn.Module,
    evaluate: Evaluate,
    *,
    batches: Iterable[Any] | None = None,
    forward: Forward | None = None,
    points: int = POINTS,
) -> Connectivity:
    """Loss and score at `points` evenly spaced points of the line from a to b, both ends included, and the barriers.

    a, b: two models of one architecture; not changed (the line is walked by a copy of a, on a's device).
    evaluate: model in eval mode -> {"loss": lower is better, "score": higher is better, ...}; everything that it
        returns is a column of `path`.
    batches, forward: for `recalibrate_batchnorm`, done at every point, the ends too, so that all are treated alike;
        needed when the models have BatchNorm, unused when not. Use training inputs.
    points: at least 3.

    Parameters and floating-point buffers are interpolated; integer buffers are a's. Symmetric in a and b up to
    rounding, without BatchNorm momentum or any random number of its own.
    ValueError for different architectures, BatchNorm without batches, and a loss or score that is missing or NaN.
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 3:
        raise ValueError(f"points counts both ends and what lies between, at least 3: got {points!r}")
    _check_alike(a, b)
    model = copy.deepcopy(a).eval()
    normed = any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())
    if normed and batches is None:
        raise ValueError("the models have BatchNorm: pass batches of training inputs to re-estimate its statistics")
    inputs: Sequence[Any] = list(batches) if normed and batches is not None else []
    start, end, line = a.state_dict(), b.state_dict(), model.state_dict()
    rows = []
    for t in np.linspace(0.0, 1.0, points):
        for name, tensor in line.items():
            tensor.copy_(_between(start[name], end[name], float(t)))
        if normed:
            recalibrate_batchnorm(model, inputs, forward)
        rows.append({"t": float(t), **_checked(evaluate(model.eval()), float(t))})
    path = pd.DataFrame(rows)
    loss, error = path["loss"].to_numpy(), -path["score"].to_numpy()
    return Connectivity(_barrier(loss), _barrier(error), _lmc(loss), _lmc(error), path)


def _between(start: Tensor, end: Tensor, t: float) -> Tensor:
    """lerp: exact at both ends, and where both are equal; integers as at the start."""
    return torch.lerp(start, end.to(start), t) if start.is_floating_point() else start


def _barrier(values: np.ndarray) -> float:
    """The most that `values` rises above its chord; the ends, where the difference is 0, count."""
    t = np.linspace(0.0, 1.0, len(values))
    chord = (1 - t) * values[0] + t * values[-1]
    inner = (values - chord)[1:-1]
    # the chord of equal ends is off by a rounding error, which is no barrier
    slack = 4 * np.finfo(np.float64).eps * np.abs(values[[0, -1]]).max()
    return float(max(0.0, inner.max())) if inner.max() > slack else 0.0


def _lmc(values: np.ndarray) -> float:
    gaps = (values[0] + values[-1]) / 2 - values
    return float(gaps[np.abs(gaps).argmax()])


def _check_alike(a: nn.Module, b: nn.Module) -> None:
    shapes_a, shapes_b = ({n: tuple(v.shape) for n, v in m.state_dict().items()} for m in (a, b))
    for name in [*shapes_a, *shapes_b]:
        if shapes_a.get(name) != shapes_b.get(name):
            raise ValueError(
                f"a and b are two models of one architecture: {name} is {shapes_a.get(name, 'missing')} in a and "
                f"{shapes_b.get(name, 'missing')} in b"
            )


def _checked(found: Mapping[str, float], t: float) -> dict[str, float]:
    missing = [name for name in ("loss", "score") if name not in found]
    if missing:
        raise ValueError(f"evaluate returns a mapping with 'loss' and 'score': {missing[0]!r} is missing")
    numbers = {name: float(value) for name, value in found.items()}
    for name in ("loss", "score"):
        if not math.isfinite(numbers[name]):
            raise ValueError(
                f"the {name} at t={t:g} of the line is {numbers[name]}: a barrier needs numbers, not NaN or inf"
            )
    return numbers
