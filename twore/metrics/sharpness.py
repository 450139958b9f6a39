"""Sharpness: how much the loss rises when every weight is moved by a small random fraction of itself.

Average-case adaptive sharpness of Andriushchenko et al. 2023, section 3.1, with c = |w|:

    S(w) = E[ L(w + d) ] - L(w),   d_i ~ Normal(0, (radius |w_i|)^2).

The ball is relative, so rescaling a layer (which BatchNorm or ReLU undo) changes nothing, and a pruned weight, being
zero, stays zero. To second order S = radius^2 / 2 * sum_i H_ii w_i^2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from twore.metrics.hessian import Loss, chosen_parameters, counted, still
from twore.metrics.registry import register
from twore.seeds import derive_seed

RADIUS = 0.05  # of each weight's size; our choice: the loss of a trained network then rises by some percent
SAMPLES = 8  # pairs; our choice


@dataclass(frozen=True)
class Sharpness:
    """`float()` gives the value. value, stderr (NaN for one pair) and base, the loss itself: in units of the loss."""

    value: float
    stderr: float
    base: float
    samples: int

    def __float__(self) -> float:
        return self.value


@register(
    "sharpness",
    takes="model, loss, batches",
    unit="units of the loss",
    low=-math.inf,
    high=math.inf,
    better="low",
    source="average-case adaptive sharpness, Andriushchenko et al. 2023, with antithetic pairs",
    cost="2 `samples` + 1 (17) forward passes over the batches; one copy of the parameters",
)
@torch.no_grad()
def sharpness(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    seed: int = 0,
    parameters: Mapping[str, nn.Parameter] | None = None,
) -> Sharpness:
    """Mean rise of the mean loss under relative Gaussian noise; below 0 only off a minimum. Arguments as `hessian_top`.

    radius: standard deviation of the noise as a fraction of each weight, > 0.
    samples: pairs of opposite perturbations: the slope, which has no mean, cancels within a pair. Drawn on the CPU
        from `seed`, the same on every device and, for equal shapes, for every checkpoint of a trajectory.

    Dropout is off and BatchNorm in eval mode. Weights are put back exactly, also after an error.
    ValueError for a radius or number of samples out of range, no batch, and a loss that is NaN or inf.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius is a fraction of each weight, above 0: got {radius}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples is a whole number, at least 1: got {samples!r}")
    data = list(batches)
    if not data:
        raise ValueError("batches is empty: a loss needs at least one batch (a generator that was already consumed?)")
    chosen = chosen_parameters(model, parameters)
    generator = torch.Generator().manual_seed(derive_seed("sharpness", seed))
    weights = [p.detach().clone() for p in chosen]
    rises = []
    with still(model):
        base = _mean_loss(model, loss, data)
        try:
            for _ in range(samples):
                noise = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in chosen]
                ends = []
                for sign in (1, -1):
                    for p, w, z in zip(chosen, weights, noise, strict=True):
                        p.copy_(w * (1 + sign * radius * z))
                    ends.append(_mean_loss(model, loss, data))
                rises.append(sum(ends) / 2 - base)
        finally:
            for p, w in zip(chosen, weights, strict=True):
                p.copy_(w)
    values = np.array(rises)
    stderr = float(values.std(ddof=1) / math.sqrt(samples)) if samples > 1 else math.nan
    return Sharpness(float(values.mean()), stderr, base, samples)


def _mean_loss(model: nn.Module, loss: Loss, batches: Sequence[Any]) -> float:
    total, count = 0.0, 0
    for batch in batches:
        summed, examples = loss(model, batch)
        total += float(summed)
        count += examples
    mean = total / counted(count)
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean}, NaN or inf: the run diverged, or the radius is too large")
    return mean
