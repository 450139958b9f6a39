"""Debiased linear CKA: how alike two networks represent the same samples, streamed in one pass.

CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)) with K = X X^T and L = Y Y^T (Kornblith et al. 2019) and the
unbiased HSIC_1 of Song et al. 2012, eq. 5, as Nguyen et al. 2021 use it. With K~, L~ the kernels without their
diagonals, up to a factor that cancels,

    HSIC_1(K, L) = tr(K~ L~) + 1'K~1 1'L~1 / ((N-1)(N-2)) - 2 / (N-2) 1'K~ L~ 1.

For linear kernels all three terms are sums over samples, so no N x N matrix is built and the value is that of all
samples together, whatever the batches. Letters: N samples, F and G features of the two sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from twore.metrics.divergence import Array
from twore.metrics.registry import register
from twore.seeds import derive_seed

Features: TypeAlias = Array | Iterable[Array]  # (N, F), or an iterable of (n, F)

MIN_ROWS = 4  # HSIC_1 divides by N - 3
MAX_FEATURES = 4096  # F x F sums in float64: 128 MiB each; our choice
CONSTANT = 16  # spread below so many rounding errors of the features' own dtype is none; our choice
ROUNDING = 1e-13  # of the squared total: HSIC_1 below it is a difference of equal float64 numbers; our choice


@register(
    "cka",
    takes="feature pairs",
    unit="fraction",
    low=-1.0,
    high=1.0,
    better="high",
    source="debiased linear CKA: Kornblith et al. 2019, with HSIC_1 of Song et al. 2012 as in Nguyen et al. 2021",
    cost="a forward pass of both models over the data; O(N (F^2 + G^2)), F^2 + F G + G^2 numbers kept",
)
def cka(x: Features, y: Features) -> float:
    """Debiased linear CKA of two sets of features of the same samples: 1 for equal ones, near 0 for unrelated ones.

    x, y: (N, F) and (N, G) features, N >= 4, or iterables of batches (n, F) and (n, G), read once, side by side; the
    cuts may differ. Flatten or pool what has more axes first. Symmetric; unchanged by shifting, scaling all features of
    a side by one number, and rotating or reflecting them; independent of row order and of the cut up to rounding.
    In [-1, 1]: an unbiased estimate may fall below 0. Never NaN: a side without spread (constant features, or one
    sample unlike all others) has nothing to share, and the value is 0, also when both sides are so: two networks that
    ignore their input are not called alike.
    ValueError for unequal or too few rows, more than 4,096 features (use `projected`), NaN or inf.

    >>> x = torch.randn(50, 8, dtype=torch.float64)
    >>> round(cka(x, 2 * x.flip(1) + 1), 12)  # scaled, permuted and shifted
    1.0
    """
    total = CkaAccumulator()
    for left, right in _aligned(x, y):
        total.add(left, right)
    return total.result()


class CkaAccumulator:
    """CKA of two models as batches come: `add` each pair of batches, then `result`."""

    def __init__(self) -> None:
        self.rows = 0
        self._pairs: tuple[_Sums, _Sums, _Sums] | None = None  # of x with x, y with y, x with y
        self._shift: tuple[Tensor, Tensor] | None = None
        self._scale = (1.0, 1.0)
        self._raw = [0.0, 0.0]  # sums of squares before the shift
        self._rounding = [0.0, 0.0]  # of the features' dtypes

    @torch.no_grad()
    def add(self, x: Array, y: Array) -> None:
        """Add the rows of one pair of batches, (n, F) and (n, G); ValueError as `cka`, adding nothing."""
        sides = _as_features(x, "x"), _as_features(y, "y")
        (left, eps_left), (right, eps_right) = sides
        if left.shape[0] != right.shape[0]:
            raise ValueError(f"x and y are features of the same samples: got {left.shape[0]} and {right.shape[0]} rows")
        if left.shape[0] == 0:
            return
        if self._pairs is None or self._shift is None:
            # The value depends on neither shift nor scale (powers of 2: exact), its rounding does, and whether sums of
            # fourth powers fit into a float; the first row is the same for every cut
            self._shift = (left[0].clone(), right[0].clone())
            self._scale = (_power_of_two(left[0]), _power_of_two(right[0]))
            self._pairs = (_Sums(left, left), _Sums(right, right), _Sums(left, right))
        for side, shift, name in ((left, self._shift[0], "x"), (right, self._shift[1], "y")):
            if side.shape[1] != shift.numel():
                raise ValueError(f"the batches of {name} had {shift.numel()} features, now {side.shape[1]}")
        left, right = (side / scale for side, scale in zip((left, right), self._scale, strict=True))
        for i, (side, (_, eps)) in enumerate(zip((left, right), sides, strict=True)):
            self._raw[i] += float(side.square().sum())
            self._rounding[i] = max(self._rounding[i], eps)
        left = left - self._shift[0] / self._scale[0]
        right = right - self._shift[1].to(right.device) / self._scale[1]
        for sums, a, b in zip(self._pairs, (left, right, left), (left, right, right), strict=True):
            sums.add(a, b.to(a.device))
        self.rows += left.shape[0]

    def result(self) -> float:
        """CKA of the rows so far, in [-1, 1]; ValueError for fewer than 4."""
        if self.rows < MIN_ROWS or self._pairs is None:
            raise ValueError(f"debiased CKA needs at least {MIN_ROWS} samples: got {self.rows}")
        xx, yy, xy = self._pairs
        for sums, raw, eps in zip((xx, yy), self._raw, self._rounding, strict=True):
            spread = float(sums.a)  # squared distances from the first row
            if spread <= (CONSTANT * eps) ** 2 * raw or sums.hsic(self.rows) <= ROUNDING * spread * spread:
                return 0.0
        value = xy.hsic(self.rows) / (math.sqrt(xx.hsic(self.rows)) * math.sqrt(yy.hsic(self.rows)))
        return min(1.0, max(-1.0, value))


def centred_logits(p: Tensor) -> Tensor:
    """Logits back from probabilities, each row's mean taken off: features for `cka` from any task's outputs.

    (N, C) -> (N, C) of the same dtype. A softmax loses each row's constant only; a probability of 0 counts as the
    dtype's smallest normal number.
    """
    logits = p.clamp_min(torch.finfo(p.dtype).tiny).log()
    return logits - logits.mean(dim=1, keepdim=True)


def projected(x: Tensor, width: int, *, seed: int = 0) -> Tensor:
    """Features through a fixed Gaussian matrix, for sides with too many (a vocabulary). (N, F) -> (N, width), float32

    Inner products, all that `cka` sees, keep their expectation; their relative error falls as 1 / sqrt(width).
    The matrix depends on F, width and seed only: project both sides alike.
    """
    if width < 1:
        raise ValueError(f"width is a number of features, at least 1: got {width}")
    return x.float() @ _projection(x.shape[1], width, seed).to(x.device)


class _Sums:
    """The sums over samples that HSIC_1 of two sides needs; a and b are the squared norms of their rows."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=x.device)

        f, g = x.shape[1], y.shape[1]
        self.xy, self.x, self.y = zeros(f, g), zeros(f), zeros(g)
        self.bx, self.ay = zeros(f), zeros(g)  # sum of b_i x_i, of a_i y_i
        self.a, self.b, self.ab = zeros(), zeros(), zeros()

    def add(self, x: Tensor, y: Tensor) -> None:
        a, b = x.square().sum(1), y.square().sum(1)  # (n, F), (n, G) -> (n,)
        self.xy += x.T @ y
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.bx += b @ x
        self.ay += a @ y
        self.a += a.sum()
        self.b += b.sum()
        self.ab += a @ b

    def hsic(self, n: int) -> float:
        """HSIC_1 of n samples, times n (n - 3)."""
        trace = self.xy.square().sum() - self.ab
        ones = (self.x @ self.x - self.a) * (self.y @ self.y - self.b)
        both = self.x @ self.xy @ self.y - self.bx @ self.x - self.ay @ self.y + self.ab
        return float(trace + ones / ((n - 1) * (n - 2)) - 2 / (n - 2) * both)


def _power_of_two(row: Tensor) -> float:
    """Near the row's largest magnitude; 1 for zeros. (F,)"""
    top = float(row.abs().max()) if row.numel() else 0.0
    return 2.0 ** min(math.frexp(top)[1], 1023) if top else 1.0


def _as_features(batch: Array, name: str) -> tuple[Tensor, float]:
    """A batch in float64, (n, F), and the rounding of the dtype that it came in."""
    if not isinstance(batch, (Tensor, np.ndarray)):
        raise TypeError(f"{name} is batches of features, tensors or arrays (n, F): got {type(batch).__name__}")
    x = torch.tensor(batch) if isinstance(batch, np.ndarray) else batch.detach()
    if x.ndim != 2 or x.is_complex():
        raise ValueError(f"{name} is real features (n, F), a row a sample: got {x.dtype} of shape {tuple(x.shape)}")
    if x.shape[1] > MAX_FEATURES:
        raise ValueError(f"{name} has {x.shape[1]} features, at most {MAX_FEATURES}: pass projected({name}, 512)")
    eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    wide = (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64
    if not bool(wide.isfinite().all()):
        raise ValueError(f"{name} holds NaN or inf: features are finite")
    return wide, eps


def _aligned(x: Features, y: Features) -> Iterator[tuple[Array, Array]]:
    """The rows of x and y as pairs of equally long batches, whatever the two cuts are."""
    if x is y and isinstance(x, Iterator):
        raise ValueError("x and y are one and the same iterator: pass two, each reads its own features")
    lefts, rights = (iter([s] if isinstance(s, (Tensor, np.ndarray)) else s) for s in (x, y))
    left, right, rows = next(lefts, None), next(rights, None), 0
    while left is not None and right is not None:
        n = min(len(left), len(right))
        yield left[:n], right[:n]
        rows += n
        left = left[n:] if n < len(left) else next(lefts, None)
        right = right[n:] if n < len(right) else next(rights, None)
    if left is not None or right is not None:
        short = "x" if left is None else "y"
        raise ValueError(f"x and y differ in their number of rows: {short} ended after {rows} rows, the other goes on")


@lru_cache(maxsize=2)
def _projection(features: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("feature projection", seed))
    return torch.randn(features, width, generator=generator) / math.sqrt(width)
