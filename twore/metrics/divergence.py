"""Jensen-Shannon divergence and distance between probability rows (Lin 1991): the JS of report eq. 1 and eq. 2.

JS(p, q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2 and natural logarithms. Letters: N rows, C classes.
"""

from __future__ import annotations

import math
from typing import TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from twore.metrics.registry import register

Array: TypeAlias = Tensor | np.ndarray

LN2 = math.log(2.0)
SUM_TOLERANCE = 1e-3  # of a row's sum; our choice: far above float32 rounding, far below a forgotten softmax
HALF_SUM_TOLERANCE = 1e-2  # our choice: a rounded 16-bit softmax over some 40,000 words is off by a few thousandths
HALF_DTYPES = (torch.float16, torch.bfloat16)


@overload
def js_divergence(p: Tensor, q: Array) -> Tensor: ...
@overload
def js_divergence(p: np.ndarray, q: Tensor) -> Tensor: ...
@overload
def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray: ...
@register(
    "js_divergence",
    takes="probability pairs",
    unit="nats",
    low=0.0,
    high=LN2,
    better="none",
    source="Lin 1991, natural logarithm; the JS of report eq. 1 and eq. 2",
    cost="O(N C), no model",
)
def js_divergence(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence of each row, in nats: 0 for equal rows, at most ln 2. Symmetric. (N, C), (N, C) -> (N,)

    Rows are probabilities; each is divided by its sum, which must be 1 up to rounding (1e-3; 1e-2 for 16-bit floats).
    16-bit floats are computed and returned in float32, all else in the wider of the two dtypes.
    Torch in, torch out; two NumPy arrays give a NumPy array.
    ValueError for other shapes, negative or non-finite entries, and rows that do not sum to 1.

    >>> js_divergence(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])).round(4)
    array([0.6931, 0.    ])
    """
    rows = js_rows(*checked_pair(p, q))
    return rows if isinstance(p, Tensor) or isinstance(q, Tensor) else rows.numpy()


@overload
def js_distance(p: Tensor, q: Array) -> Tensor: ...
@overload
def js_distance(p: np.ndarray, q: Tensor) -> Tensor: ...
@overload
def js_distance(p: np.ndarray, q: np.ndarray) -> np.ndarray: ...
@register(
    "js_distance",
    takes="probability pairs",
    unit="sqrt(nats)",
    low=0.0,
    high=math.sqrt(LN2),
    better="none",
    source="square root of js_divergence (Endres and Schindelin 2003): a metric, WeightWatcher's convention",
    cost="O(N C), no model",
)
def js_distance(p: Array, q: Array) -> Array:
    """Square root of `js_divergence`, row by row: 0 for equal rows, at most sqrt(ln 2) = 0.8326. (N, C), (N, C) -> (N,)

    A metric in the mathematical sense: symmetric, and the triangle inequality holds. Inputs and errors as there.
    """
    return js_divergence(p, q) ** 0.5


def js_rows(p: Tensor, q: Tensor) -> Tensor:
    """JS divergence over the last axis, in nats, of rows that sum to 1; NaN passes. (..., C), (..., C) -> (...)"""
    # With s = p + q, a and b = 2 max(p, q) / s and 2 min(p, q) / s, d = |p - q| / s, so a, b = 1 +- d, the sum is
    # 1/4 * sum s * (a log a + b log b). Near d = 0 that cancels (spectra of trained layers have d ~ 1e-3), and there
    # the same bracket is log(1 - d^2) + 2 d atanh(d), two terms of order d^2: no term is negative or loses its digits.
    s = p + q
    half = torch.where(s == 0, 1.0, s) / 2
    a, b, d = torch.maximum(p, q) / half, torch.minimum(p, q) / half, (p - q).abs() / (2 * half)
    close = d.clamp(max=0.5)
    terms = torch.where(
        d < 0.5,
        torch.log1p(-close * close) + 2 * close * torch.atanh(close),
        torch.xlogy(a, a) + torch.xlogy(b, b),
    )
    return ((s * terms).sum(-1) / 4).clamp(0.0, _ln2_in(s.dtype))


def checked_pair(p: Array, q: Array) -> tuple[Tensor, Tensor]:
    """The two inputs as float32 or float64 tensors with rows that sum to 1; ValueError as `js_divergence` documents."""
    left, right = _as_tensor(p, "p"), _as_tensor(q, "q")
    if left.shape != right.shape or left.ndim != 2 or left.shape[1] == 0:
        raise ValueError(
            f"p and q are (N, C) of one shape, a row a sample: got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    if left.device != right.device:
        raise ValueError(f"p is on {left.device} and q on {right.device}: move one to the other's device")
    dtype = torch.promote_types(_computing_dtype(left.dtype), _computing_dtype(right.dtype))
    return _normalised(left, dtype, "p"), _normalised(right, dtype, "q")


def _normalised(x: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    tolerance = HALF_SUM_TOLERANCE if x.dtype in HALF_DTYPES else SUM_TOLERANCE
    wide = x.to(dtype)
    sums = wide.sum(1, keepdim=True)
    # NaN and inf make the sum NaN or inf, so two reductions are enough for rows that are right
    bad = ~((sums - 1).abs() <= tolerance).squeeze(1) | (wide.amin(1) < 0)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(_what_is_wrong(wide[row], name, row, tolerance))
    return wide / sums


def _what_is_wrong(values: Tensor, name: str, row: int, tolerance: float) -> str:
    if not bool(values.isfinite().all()):
        return f"row {row} of {name} holds NaN or inf: probabilities are finite"
    if bool((values < 0).any()):
        return f"row {row} of {name} holds a negative entry: pass probabilities, softmax(logits), not logits or logs"
    return f"row {row} of {name} sums to {float(values.sum()):.6g}, not to 1 within {tolerance}: pass softmax(logits)"


def _as_tensor(x: Array, name: str) -> Tensor:
    if isinstance(x, np.ndarray):
        known = (np.float16, np.float32, np.float64)
        x = torch.tensor(x if x.dtype in known else x.astype(np.float64))  # a copy: read-only arrays are fine
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a torch tensor or a NumPy array of probabilities: got {type(x).__name__}")
    if x.is_complex():
        raise ValueError(f"{name} is complex: probabilities are real")
    return x


def _computing_dtype(dtype: torch.dtype) -> torch.dtype:
    if not dtype.is_floating_point or dtype == torch.float64:
        return torch.float64
    return torch.float32


def _ln2_in(dtype: torch.dtype) -> float:
    # float32(ln 2) lies above ln 2; "at most ln 2" is to hold in float32 too
    return LN2 if dtype == torch.float64 else float(np.nextafter(np.float32(LN2), np.float32(0)))
