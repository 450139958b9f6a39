"""A read-out fitted anew: what a pruned network's features still say, where its own last layer no longer reads them.

The last linear layer is fitted in closed form, by ridge regression of the classes (one-hot, with an intercept) on the
layer's inputs, and scored on examples it was not fitted to: the rows of the probe batches fall into two halves, and
each is scored by the fit to the other. Nothing of the network is changed, and no other data are seen.

    G = (X - mean)' (X - mean)      W = (G + ridge I)^-1 (X - mean)' (Y - mean)      ridge = RIDGE trace(G) / d

in float64, without writing Y out. Alain and Bengio 2016 call such a thing a linear classifier probe.
Shape letters: N rows of `outputs` (examples, or target tokens), d features, C classes; two halves where a shape begins
with 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twore.training import Numerics

RIDGE = 1e-3  # of the mean variance of the features: next to nothing, but there is always a solution; our choice
BLOCK = 32  # rows that go to one half together: longer than most sentences, shorter than most classes; our choice
CONSTANT = 1e-20  # of its mean square: a variance that is rounding
CHUNK = 1024  # rows that are scored at once, to bound memory with large vocabularies; our choice


@torch.no_grad()
def readout_scores(model: nn.Module, data: Any, batches: Sequence[Any], numerics: Numerics) -> dict[str, float]:
    """Of a model in eval mode, cross-validated on these batches, each row scored once:

    score  percent right, in [0, 100]
    loss   mean squared distance of the fit from the one-hot class, 0 for a perfect one, below 1 for any use

    data: of a task, with `outputs` and `targets` (twore.tasks.base). Empty where no linear layer has a row of C outputs
    for each row of `outputs`, or there are fewer rows than two blocks. NaN where the features are not finite.
    """
    pairs = []
    for batch in batches:
        with numerics.autocast():
            features = last_features(model, data, batch)
        if features is None:
            return {}
        pairs.append((features, data.targets(batch)))
    if not pairs:
        return {}
    classes = pairs[0][0][1]
    return cross_validated(torch.cat([x for (x, _), _ in pairs]), torch.cat([y for _, y in pairs]), classes)


def last_features(model: nn.Module, data: Any, batch: Any) -> tuple[Tensor, int] | None:
    """The inputs of the last linear layer that a forward pass calls, (N, d) as they are, and its C outputs' number;
    None where its outputs are not (N, C) as those of the task."""
    last: list[tuple[Tensor, torch.Size]] = []

    def see(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        last[:] = [(inputs[0].detach(), output.shape)]  # not the output: with a large vocabulary it is large

    with _hooked(model, see):
        p: Tensor = data.outputs(model, batch)  # (N, C)
    if not last or last[0][0].ndim < 2:
        return None
    features, classes = last[0][0].flatten(0, -2), last[0][1][-1]
    return (features, classes) if (len(features), classes) == tuple(p.shape) else None


def cross_validated(features: Tensor, targets: Tensor, classes: int) -> dict[str, float]:
    """score and loss as `readout_scores`. features: (N, d) of any float type; targets: (N,) int64 below `classes`."""
    count = len(targets)
    half = torch.arange(count, device=targets.device).div(BLOCK, rounding_mode="floor") % 2 == 1  # (N,)
    if count <= BLOCK:
        return {}
    device = "cpu" if features.device.type == "mps" else features.device  # which has no float64
    x, y, half = features.to(device).double(), targets.to(device), half.to(device)
    if not bool(x.isfinite().all()):
        return {"score": float("nan"), "loss": float("nan")}
    right, squares = 0, 0.0
    for fitted in (half, ~half):
        weight, bias = ridge(x[fitted], y[fitted], classes)
        for rows, wanted in zip(x[~fitted].split(CHUNK), y[~fitted].split(CHUNK)):
            found = rows @ weight + bias  # (n, C)
            right += int((found.argmax(1) == wanted).sum())
            own = found.gather(1, wanted[:, None]).sum()
            squares += float(found.square().sum() - 2 * own) + len(wanted)
    return {"score": 100.0 * right / count, "loss": squares / count}


def ridge(x: Tensor, y: Tensor, classes: int, *, strength: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Weight (d, C) and bias (C,) of the regression of one-hot classes on x (n, d) float64; y (n,) int64, n >= 1.

    strength: of the mean variance of the features. Features that never vary have weight 0: then it says the classes'
    shares.
    """
    mean = x.mean(0)
    centred = x - mean
    share = torch.bincount(y, minlength=classes).double() / len(y)  # (C,)
    gram = centred.T @ centred  # (d, d)
    sums = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, y, centred)  # (C, d)
    level = float(gram.diagonal().mean())
    if level <= CONSTANT * float(x.square().sum(0).mean()):
        return torch.zeros_like(sums.T), share
    gram.diagonal().add_(strength * level)
    weight = torch.cholesky_solve(sums.T, torch.linalg.cholesky(gram))
    return weight, share - mean @ weight


def chance(targets: Tensor) -> float:
    """Percent right of whoever always says the commonest class, in (0, 100]. (N,) int64"""
    return 100.0 * int(torch.bincount(targets).max()) / len(targets)


@contextmanager
def _hooked(model: nn.Module, see: Any) -> Iterator[None]:
    handles = [layer.register_forward_hook(see) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
