"""Eigenvalues of W^T W, in float64, by the smaller Gram matrix; of a convolution those of all its slices, pooled.

Rounding is some 1e-16 of the largest eigenvalue. Letters: n matrices r x c of one shape, m = min(r, c), k of the longer
side at once; P copies of S slices of a layer, E = S m eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

CHUNK = 2**22  # entries decomposed at once: 32 MiB of float64, our choice


@torch.no_grad()
def eigenvalues(weight: Tensor, *, device: torch.device | str | None = None) -> Tensor:
    """Eigenvalues of W^T W (squared singular values) of a weight, its slices pooled, ascending, float64, >= 0. -> (E,)

    (out, in) is one slice; (out, in, ...) has one for each kernel offset. ValueError for NaN or inf.

    >>> eigenvalues(torch.diag(torch.tensor([3.0, 1.0, 2.0]))).tolist()
    [1.0, 4.0, 9.0]
    """
    slices, scale = as_slices("weight", weight)
    where = compute_device(weight, device)
    return pooled_eigenvalues(slices[None], scale or 1.0, where)[0] * (scale or 1.0) ** 2


def as_slices(name: str, weight: Tensor, *, short: bool = False) -> tuple[np.ndarray, float]:
    """A weight as (S, out, in) in float32 or float64 on the CPU, and its largest magnitude (0 when empty).

    short: leave float16 as it is, and bfloat16 as its bits in uint16 (NumPy has no such type); a third of the memory.
    """
    dense = weight.detach()
    if dense.is_complex():
        raise ValueError(f"the weight {name} is complex: spectra are taken of real weights")
    if dense.layout is not torch.strided:
        dense = dense.to_dense()
    if dense.dtype not in (torch.float32, torch.float64, *((torch.float16, torch.bfloat16) if short else ())):
        dense = dense.to(torch.float32 if dense.is_floating_point() else torch.float64)
    ends = [float(end) for end in dense.aminmax()] if dense.numel() else [0.0]  # no copy; NaN comes through
    if not all(map(math.isfinite, ends)):
        raise ValueError(f"the weight {name} holds NaN or inf: the run diverged, or the file is damaged")
    dense = dense.view(torch.uint16) if dense.dtype == torch.bfloat16 else dense
    matrices = dense[..., None].flatten(2).permute(2, 0, 1)  # (out, in, ...) -> (S, out, in)
    scale = max(map(abs, ends))
    return np.ascontiguousarray(matrices.cpu().numpy()), scale


def pooled_eigenvalues(stack: np.ndarray, scale: float, device: torch.device) -> Tensor:
    """Pooled eigenvalues of W^T W / scale^2, ascending, clipped at 0 against rounding. (P, S, r, c) -> (P, E)

    stack: of any type that `as_slices` returns.
    """
    copies, slices, rows, columns = stack.shape
    matrices = stack.reshape(-1, rows, columns)
    if device.type == "cpu":
        evals = torch.from_numpy(_eigenvalues_on_cpu(matrices, scale))
    else:
        numbers = torch.from_numpy(matrices)
        numbers = numbers.view(torch.bfloat16) if numbers.dtype == torch.uint16 else numbers
        evals = _eigenvalues_on_device(numbers.to(device), scale)
    return evals.clamp_min(0.0).reshape(copies, slices * min(rows, columns)).sort(dim=1).values


def compute_device(weight: Tensor, device: torch.device | str | None) -> torch.device:
    """Where to decompose: as asked, else where the weight is, if float64 exists there."""
    chosen = weight.device if device is None else torch.device(device)
    return torch.device("cpu") if chosen.type == "mps" else chosen  # MPS has no float64


def _eigenvalues_on_cpu(matrices: np.ndarray, scale: float) -> np.ndarray:
    """By NumPy, on as many threads as torch: its product of a matrix with its own transpose computes one triangle only,
    and its LAPACK is the faster one for 512 x 512 (numpy 2.4 and torch 2.15 wheels, AMD EPYC). (n, r, c) -> (n, m)"""
    n, rows, columns = matrices.shape
    gram = np.zeros((n, min(rows, columns), min(rows, columns)))
    with _libraries().limit(limits=torch.get_num_threads(), user_api="blas"):  # else all cores, in every worker
        for start, stop in _blocks(n, rows, columns):
            if rows >= columns:  # the smaller Gram matrix has the same non-zero eigenvalues
                block = _as_float64(matrices[:, start:stop])  # (n, k, c)
                block /= scale
                gram += block.swapaxes(1, 2) @ block
            else:
                block = _as_float64(matrices[:, :, start:stop])  # (n, r, k)
                block /= scale
                gram += block @ block.swapaxes(1, 2)
        return np.linalg.eigvalsh(gram)


def _as_float64(part: np.ndarray) -> np.ndarray:
    """A copy in float64; the bits of a bfloat16 are the upper half of a float32's."""
    numbers = (part.astype(np.uint32) << 16).view(np.float32) if part.dtype == np.uint16 else part
    return numbers.astype(np.float64)


def _eigenvalues_on_device(matrices: Tensor, scale: float) -> Tensor:
    """The same by torch. (n, r, c) -> (n, min(r, c))"""
    n, rows, columns = matrices.shape
    tall = matrices if rows >= columns else matrices.mT
    gram = torch.zeros(n, tall.shape[2], tall.shape[2], dtype=torch.float64, device=matrices.device)
    for start, stop in _blocks(n, rows, columns):
        block = tall[:, start:stop].double() / scale
        gram += block.mT @ block
    return torch.linalg.eigvalsh(gram)


@cache
def _libraries() -> ThreadpoolController:
    """The linear algebra libraries of this process; looking for them takes a few ms."""
    return ThreadpoolController()


def _blocks(n: int, rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Parts of the longer side: the float64 copy of a whole 250,000 x 4,096 weight would be 8 GB."""
    longer = max(rows, columns)
    step = max(1, CHUNK // max(1, n * min(rows, columns)))
    for start in range(0, longer, step):
        yield start, min(start + step, longer)
