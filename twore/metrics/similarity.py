"""model_similarity (report eq. 1) and agreement: how alike two fine-tuned models predict, streamed in one pass.

Each is a sum over rows divided once by the number of rows. Letters: N rows (samples, or target tokens), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from twore.metrics.divergence import LN2, Array, checked_pair, js_rows
from twore.metrics.registry import register

Batches: TypeAlias = Array | Iterable[Array]  # (N, C), or an iterable of (n, C)

CHUNK = 2**22  # entries compared at once: 16 MiB a float32 copy, our choice


@register(
    "model_similarity",
    takes="probability pairs",
    unit="nats",
    low=0.0,
    high=LN2,
    better="low",
    source="report eq. 1: mean JS divergence over the training set between two fine-tune seeds",
    cost="a forward pass of both models over the data",
)
def model_similarity(p: Batches, q: Batches) -> float:
    """Mean JS divergence over all rows, in nats: 0 when all rows are equal, at most ln 2. Larger means LESS similar.

    p, q: (N, C) probabilities (tensors or arrays), or iterables of (n, C) batches, which are read once, side by side;
    the two may be cut into batches differently. Symmetric; independent of row order and of the cut up to rounding.
    ValueError for unequal shapes or numbers of rows, for no rows at all, and for rows that are not probabilities.

    >>> model_similarity(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]]))  # (ln 2 + 0) / 2
    0.34657359027997264
    """
    return _means(["model_similarity"], p, q)["model_similarity"]


@register(
    "agreement",
    takes="probability pairs",
    unit="fraction",
    low=0.0,
    high=1.0,
    better="high",
    source="share of rows with equal arg max, as in the loss-landscape taxonomy (Yang et al. 2021)",
    cost="a forward pass of both models over the data",
)
def agreement(p: Batches, q: Batches) -> float:
    """Share of rows whose most probable class is the same, in [0, 1]; the lowest index wins a tie. Symmetric.

    Inputs and errors as `model_similarity`.
    """
    return _means(["agreement"], p, q)["agreement"]


def pair_metrics(p: Batches, q: Batches) -> dict[str, float]:
    """All pair metrics, {"model_similarity": nats, "agreement": fraction}, from one pass. Inputs as there."""
    return _means(None, p, q)


class PairAccumulator:
    """Pair metrics of two models as batches come: `add` each pair of batches, then `result`.

    For callers that run several models over the data at once and would otherwise pay a pass for each pair.
    """

    def __init__(self, names: Iterable[str] | None = None) -> None:
        chosen = tuple(ROW_FUNCTIONS) if names is None else tuple(names)
        unknown = [name for name in chosen if name not in ROW_FUNCTIONS]
        if unknown or not chosen:
            raise ValueError(f"pair metrics are {', '.join(ROW_FUNCTIONS)}: got {', '.join(unknown) or 'none'}")
        self.rows = 0
        self._sums = dict.fromkeys(chosen, 0.0)
        self._classes: int | None = None

    @torch.no_grad()
    def add(self, p: Array, q: Array) -> None:
        """Add the rows of one pair of batches, (n, C) and (n, C); ValueError as `model_similarity`, adding nothing."""
        _check_batch(p, "p")
        _check_batch(q, "q")
        if p.shape != q.shape:
            raise ValueError(f"p and q are batches (n, C) of one shape: got {tuple(p.shape)} and {tuple(q.shape)}")
        n, classes = p.shape
        if self._classes not in (None, classes):
            raise ValueError(f"the batches had {self._classes} classes, now {classes}: C must not change")
        sums = dict(self._sums)
        step = max(1, CHUNK // max(1, classes))
        for start in range(0, n, step):
            left, right = checked_pair(p[start : start + step], q[start : start + step])
            for name in sums:
                rows = ROW_FUNCTIONS[name](left, right)  # (n, C), (n, C) -> (n,)
                sums[name] += float(rows.cpu().double().sum())
        self._sums, self.rows, self._classes = sums, self.rows + n, classes

    def result(self) -> dict[str, float]:
        """Metric name -> mean over the rows so far; ValueError when there were none."""
        if self.rows == 0:
            raise ValueError("no rows to compare: p and q are empty (a generator that was already consumed?)")
        return {name: total / self.rows for name, total in self._sums.items()}


def _means(names: Iterable[str] | None, p: Batches, q: Batches) -> dict[str, float]:
    total = PairAccumulator(names)
    for left, right in _aligned(p, q):
        total.add(left, right)
    return total.result()


def _same_argmax(p: Tensor, q: Tensor) -> Tensor:
    """(n, C), (n, C) -> (n,) bool; torch documents that argmax takes the first of equal maxima."""
    return p.argmax(1) == q.argmax(1)


ROW_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "model_similarity": js_rows,
    "agreement": _same_argmax,
}


def _aligned(p: Batches, q: Batches) -> Iterator[tuple[Array, Array]]:
    """The rows of p and q as pairs of equally long batches, whatever the two cuts are."""
    if p is q and isinstance(p, Iterator):
        raise ValueError("p and q are one and the same iterator: pass two, each reads its own predictions")
    if isinstance(p, (Tensor, np.ndarray)) and isinstance(q, (Tensor, np.ndarray)) and p.shape != q.shape:
        raise ValueError(f"p and q are (N, C) of one shape: got {tuple(p.shape)} and {tuple(q.shape)}")
    left_batches, right_batches = _batches(p, "p"), _batches(q, "q")
    left, right, rows = next(left_batches, None), next(right_batches, None), 0
    while left is not None and right is not None:
        n = min(left.shape[0], right.shape[0])
        yield left[:n], right[:n]
        rows += n
        left = left[n:] if n < left.shape[0] else next(left_batches, None)
        right = right[n:] if n < right.shape[0] else next(right_batches, None)
    if left is not None or right is not None:
        short = "p" if left is None else "q"
        raise ValueError(f"p and q differ in their number of rows: {short} ended after {rows} rows, the other goes on")


def _batches(x: Batches, name: str) -> Iterator[Array]:
    """Non-empty (n, C) batches."""
    for batch in [x] if isinstance(x, (Tensor, np.ndarray)) else x:
        _check_batch(batch, name)
        if batch.shape[0]:
            yield batch


def _check_batch(batch: Array, name: str) -> None:
    if not isinstance(batch, (Tensor, np.ndarray)):
        raise TypeError(f"{name} is batches of probabilities, tensors or arrays (n, C): got {type(batch).__name__}")
    if batch.ndim != 2:
        raise ValueError(f"{name} is batches (n, C), a row a sample: got the shape {tuple(batch.shape)}")
