"""Inputs for the common test of all registered metrics: a case for everything that a metric may take (TAKES)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn


def numbers(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def probability_pair(seed):
    generator = numbers(seed)
    return tuple((4 * normal(40, 6, generator=generator)).softmax(1) for _ in range(2))


def feature_pair(seed):
    generator = numbers(seed)
    x = normal(40, 6, generator=generator)
    return x, x[:, :4] @ normal(4, 5, generator=generator) + 0.5 * normal(40, 5, generator=generator)


def weights_of(generator):
    shapes = {"conv.weight": (6, 4, 3, 3), "fc.weight": (120, 60), "head.weight": (60, 130), "bias": (10,)}
    return {name: normal(*shape, generator=generator) for name, shape in shapes.items()}


def weights_pair(seed):
    generator = numbers(seed)
    first = weights_of(generator)
    return first, {n: w + 0.5 * normal(*w.shape, generator=generator) for n, w in first.items()}


def network(seed):
    torch.manual_seed(seed)
    # smooth, so that a float32 value is near the float64 one
    return nn.Sequential(nn.Linear(4, 12), nn.LayerNorm(12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, 3)).double()


def dtype_of(model):
    return next(model.parameters()).dtype


def summed_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x.to(dtype_of(model))), y, reduction="sum"), len(y)


def labelled(seed):
    return normal(30, 4, generator=numbers(seed)), torch.arange(30) % 3


def training(seed):
    return network(seed), summed_loss, [labelled(seed)]


@torch.no_grad()
def evaluate(model):
    x, y = labelled(0)
    summed, count = summed_loss(model, (x, y))
    score = float((model(x.to(dtype_of(model))).softmax(1)[torch.arange(len(y)), y]).double().mean())  # smooth too
    return {"loss": float(summed) / count, "score": 100 * score}


def split_pair(inputs, size):
    return tuple(iter(x.split(size)) for x in inputs)


def split_batches(inputs, size):
    model, loss, [(x, y)] = inputs
    return model, loss, iter(list(zip(x.split(size), y.split(size), strict=True)))


def reordered_pair(inputs, order):
    return tuple(x[order] for x in inputs)


def reordered_batch(inputs, order):
    model, loss, [(x, y)] = inputs
    order = order[order < len(x)]
    return model, loss, [(x[order], y[order])]


def reordered_weights(inputs, order):
    return tuple(
        {**dict(reversed(x.items())), "another.bias": torch.ones(3)} if isinstance(x, dict) else x for x in inputs
    )


@dataclass(frozen=True)
class Case:
    """How metrics with the same inputs are tested. A seed gives their inputs, in float64.

    split      the same inputs cut into batches of a size; None where there is nothing to cut
    reordered  the same inputs in another order (of samples or of layers)
    symmetric  whether swapping the first two inputs changes nothing
    degenerate inputs without content -> what every metric of the case must give for them
    """

    build: Callable
    split: Callable | None = None
    reordered: Callable | None = None
    symmetric: bool = False
    degenerate: list = field(default_factory=list)


def zero(weights):
    return {n: w * 0 for n, w in weights.items()}


def blank(seed):
    """A network that has no weights but zeros: its outputs are equal for all inputs."""
    model = network(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


CONSTANT = torch.full((20, 3), 0.25, dtype=torch.float64)
SAME = "the best end of the range, or the low one"

CASES = {
    "weights": Case(
        lambda seed: (weights_of(numbers(seed)),),
        reordered=reordered_weights,
        degenerate=[((zero(weights_of(numbers(0))),), math.nan)],
    ),
    "weights, ratio": Case(
        lambda seed: (weights_of(numbers(seed)), 0.6),
        reordered=reordered_weights,
        degenerate=[((zero(weights_of(numbers(0))), 0.6), math.nan), ((weights_of(numbers(0)), 0.0), 0.0)],
    ),
    "weights, earlier weights": Case(
        weights_pair,
        reordered=reordered_weights,
        degenerate=[((weights_of(numbers(0)), zero(weights_of(numbers(0)))), math.nan), (weights_pair(0)[:1] * 2, 0.0)],
    ),
    "weights, other weights, ratio": Case(
        lambda seed: (*weights_pair(seed), 0.6),
        reordered=reordered_weights,
        symmetric=True,
        degenerate=[
            ((zero(weights_of(numbers(0))), zero(weights_of(numbers(0))), 0.6), 0.0),
            ((*weights_pair(0), 0.0), 0.0),
        ],
    ),
    "model, loss, batches": Case(
        training,
        split=split_batches,
        reordered=reordered_batch,
        # with all parameters zero, relative noise is none, and what curvature there is lies in the last bias
        degenerate=[((blank(0), lambda m, b: (0 * summed_loss(m, b)[0], 1), [labelled(0)]), 0.0)],
    ),
    "probability pairs": Case(
        probability_pair,
        split=split_pair,
        reordered=reordered_pair,
        symmetric=True,
        degenerate=[((CONSTANT[:, :1] * 4,) * 2, SAME)],  # one class: nothing to disagree about
    ),
    "feature pairs": Case(
        feature_pair,
        split=split_pair,
        reordered=reordered_pair,
        symmetric=True,
        degenerate=[((CONSTANT, CONSTANT), 0.0), ((CONSTANT, feature_pair(0)[0][:20]), 0.0)],
    ),
    "model pair, evaluate": Case(
        lambda seed: (network(seed), network(seed + 100), evaluate),
        symmetric=True,
        degenerate=[((blank(0), blank(1), evaluate), 0.0), ((network(0), network(0), evaluate), 0.0)],
    ),
}
