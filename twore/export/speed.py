"""Is it faster? Dense matrix multiplication against torch's sparse CSR, measured here at the model's own shapes.

Removing entries one by one leaves dense kernels as fast as they were; only a sparse kernel can use the zeros, and it
pays for it with irregular memory access. Most users find it slower until very few entries are left, so it is measured
and said. Convolutions are left out: CSR has none.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

DENSE = 0.99  # layers that keep more than this stay dense in any sensible use: they are not timed; our choice
COLUMNS = ["shape", "layers", "density", "batch", "dense_ms", "sparse_ms", "speedup"]


@dataclass(frozen=True)
class SparseSpeed:
    """What `sparse_speed` measured."""

    table: pd.DataFrame  # a row a shape and batch: layers (how many), density, milliseconds each, dense / sparse
    device: str
    threads: int
    convolutions: int  # weights that are no matrices: not timed
    dense: int  # matrices that keep more than DENSE: not timed

    def speedup(self, batch: int) -> float:
        """Dense over sparse time of all layers together: above 1 is faster. Only matrix multiplications count."""
        rows = self.table[self.table["batch"] == batch]
        if rows.empty:
            raise ValueError(f"batch {batch} was not measured: choose from {sorted(set(self.table['batch']))}")
        return float((rows["dense_ms"] * rows["layers"]).sum() / (rows["sparse_ms"] * rows["layers"]).sum())

    def sentence(self) -> str:
        """What it means, for people."""
        if self.table.empty:
            why = "CSR has no convolution" if self.convolutions else "there are too few zeros"
            return f"No linear layer to measure: {why}, so the zeros bring no speed here."
        sizes = self.table["shape"].map(lambda shape: shape[0] * shape[1]) * self.table["layers"]
        density = float((sizes * self.table["density"]).sum() / sizes.sum())
        parts = []
        for batch in sorted(set(self.table["batch"])):
            factor = self.speedup(batch)
            word = f"{factor:.1f} times faster" if factor >= 1 else f"{1 / factor:.1f} times slower"
            parts.append(f"{word} than dense for {batch} {'row' if batch == 1 else 'rows'}")
        threads = f"{self.threads} thread" + ("s" if self.threads != 1 else "")
        where = f"{self.device}, {threads}" if self.device == "cpu" else self.device
        return (
            f"With {density:.1%} of the pruned linear weights kept, torch CSR is {', '.join(parts)} "
            f"(matrix multiplications only, float32, {where}). Dense kernels gain nothing from zeros."
        )


def sparse_speed(
    weights: Mapping[str, Tensor],
    *,
    batch: int | Sequence[int] = (1, 32),
    seconds: float = 0.2,
    device: str | torch.device = "cpu",
) -> SparseSpeed:
    """Time x W^T dense and with W as CSR, for every shape among `weights`.

    weights: name -> (out, in), zeros in place; layers of equal shape are timed once, with the one whose density is
        nearest their mean. Convolutions, and layers without zeros to speak of, are counted and not timed.
    batch: rows of x (sentences x tokens), one number or several.
    seconds: how long each of the measurements runs; the median of its calls is reported. At least one call each.
    device: where; the weights are brought there as float32, since CSR lacks half types on the CPU.
    """
    batches = [batch] if isinstance(batch, int) else list(batch)
    if not batches or any(rows < 1 for rows in batches):
        raise ValueError(f"batch is a number of rows, 1 or more: got {batch}")
    if not seconds > 0:
        raise ValueError(f"seconds is a time above 0: got {seconds}")
    shapes: dict[tuple[int, int], dict[str, float]] = {}  # shape -> name -> density
    convolutions = dense_layers = 0
    for name in weights:
        weight = weights[name]
        density = int(weight.count_nonzero()) / max(weight.numel(), 1)
        if weight.ndim != 2:
            convolutions += 1
        elif density > DENSE or not weight.numel():
            dense_layers += 1
        else:
            shapes.setdefault((weight.shape[0], weight.shape[1]), {})[name] = density
    rows = []
    for shape, densities in shapes.items():
        mean = sum(densities.values()) / len(densities)
        name = min(densities, key=lambda one: abs(densities[one] - mean))
        dense = weights[name].to(device=device, dtype=torch.float32).contiguous()
        for count in batches:
            dense_ms, sparse_ms = _times(dense, count, seconds)
            rows.append((shape, len(densities), mean, count, dense_ms, sparse_ms, dense_ms / sparse_ms))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return SparseSpeed(table, str(device), torch.get_num_threads(), convolutions, dense_layers)


@torch.no_grad()
def _times(dense: Tensor, rows: int, seconds: float) -> tuple[float, float]:
    """(dense, sparse) milliseconds of one multiplication, the two in turns so that a busy machine slows both."""
    x = torch.randn(rows, dense.shape[1], generator=torch.Generator().manual_seed(0)).to(dense.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "beta state"
        sparse = dense.to_sparse_csr()
        calls: list[Callable[[], Tensor]] = [lambda: F.linear(x, dense), lambda: (sparse @ x.T).T]
        for call in calls:
            call()  # warm
        times: list[list[float]] = [[], []]
        end = time.perf_counter() + 2 * seconds
        while not times[0] or time.perf_counter() < end:
            for number, call in enumerate(calls):
                times[number].append(_seconds(call, dense.is_cuda))
    return tuple(sorted(each)[len(each) // 2] * 1e3 for each in times)  # type: ignore[return-value]


def _seconds(call: Callable[[], Tensor], cuda: bool) -> float:
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
