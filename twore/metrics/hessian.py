"""The Hessian of the loss: its largest eigenvalues (Lanczos) and its trace (Hutchinson), from Hessian-vector products.

Eigenvalues by scipy's eigsh on products of Pearlmutter 1994; the trace is the mean of z'Hz over random signs z
(Hutchinson 1990). The loss is the mean over the given batches, with dropout off and BatchNorm in eval mode.
Letters: n entries of the chosen parameters together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from twore.metrics.registry import register
from twore.seeds import derive_seed

Loss = Callable[[nn.Module, Any], tuple[Tensor, int]]  # the loss summed over a batch, and how many it sums

DENSE_UP_TO = 64  # entries; below, the matrix is built whole: Lanczos needs more entries than vectors
RESTARTS = 100  # of Lanczos, our choice; a top eigenvalue takes a few
SAMPLES = 32  # our choice: the trace of a trained network is then known to a few percent


@dataclass(frozen=True)
class TraceEstimate:
    """Hutchinson's estimate; `float()` gives its value. stderr: standard error over the samples, NaN for one."""

    value: float
    stderr: float
    samples: int

    def __float__(self) -> float:
        return self.value


@register(
    "hessian_top",
    takes="model, loss, batches",
    unit="loss per squared weight",
    low=-math.inf,
    high=math.inf,
    better="low",
    source="largest algebraic eigenvalue of the loss Hessian, Lanczos (Yao et al. 2020 for networks)",
    cost="20 to 60 passes forward and twice backward over the batches; 20 float64 vectors of n entries",
)
def hessian_top(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    parameters: Mapping[str, nn.Parameter] | None = None,
    seed: int = 0,
) -> float:
    """The largest eigenvalue of the Hessian of the mean loss (most positive curvature). See `hessian_eigenvalues`."""
    return float(hessian_eigenvalues(model, loss, batches, parameters=parameters, seed=seed)[0])


@register(
    "hessian_trace",
    takes="model, loss, batches",
    unit="loss per squared weight",
    low=-math.inf,
    high=math.inf,
    better="low",
    source="Hutchinson 1990: mean of z'Hz over random signs z",
    cost="`samples` (32) passes forward and twice backward over the batches; 2 vectors of n entries",
)
def hessian_trace(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    parameters: Mapping[str, nn.Parameter] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> TraceEstimate:
    """The trace of the Hessian of the mean loss, with its standard error. Arguments as `hessian_eigenvalues`.

    samples: random sign vectors, drawn on the CPU from `seed`: the same on every device. A diagonal Hessian needs one.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples is a whole number, at least 1: got {samples!r}")
    chosen = chosen_parameters(model, parameters)
    generator = torch.Generator().manual_seed(derive_seed("hessian trace", seed))
    with still(model), _products(model, loss, list(batches), chosen) as product:
        estimates = []
        for _ in range(samples):
            z = torch.randint(0, 2, (sum(p.numel() for p in chosen),), generator=generator).double() * 2 - 1
            estimates.append(float(z @ product(z)))
    values = np.array(estimates)
    stderr = float(values.std(ddof=1) / math.sqrt(samples)) if samples > 1 else math.nan
    return TraceEstimate(float(values.mean()), stderr, samples)


def hessian_eigenvalues(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    parameters: Mapping[str, nn.Parameter] | None = None,
    k: int = 1,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> np.ndarray:
    """The k largest (most positive) eigenvalues of the Hessian of the mean loss, descending. -> (k,) float64

    loss: (model, batch) -> (summed loss, number of examples), a TaskData's `loss`; the mean divides once by all.
    batches: kept in memory, and read once for each product; a few hundred examples are enough.
    parameters: name -> Parameter of the model, e.g. `prunable_weights(model)`; default all that require a gradient.
    tolerance: relative accuracy of an eigenvalue. seed: of Lanczos' first vector.

    The model is in eval mode meanwhile and put back; weights and `.grad` are not touched. Attention runs through
    torch's plain kernel, the only one that can be differentiated twice.
    ValueError for half precision, no batch, a loss that is NaN or inf; RuntimeError when Lanczos does not converge.
    """
    chosen = chosen_parameters(model, parameters)
    n = sum(p.numel() for p in chosen)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k is how many eigenvalues, from 1 to the {n} entries of the parameters: got {k!r}")
    with still(model), _products(model, loss, list(batches), chosen) as product:
        if n <= max(DENSE_UP_TO, 2 * k + 1):
            columns = torch.stack([product(row) for row in torch.eye(n, dtype=torch.float64)])
            return np.linalg.eigvalsh(((columns + columns.T) / 2).numpy())[::-1][:k].copy()
        generator = torch.Generator().manual_seed(derive_seed("hessian top", seed))
        first = torch.randn(n, generator=generator, dtype=torch.float64)
        if not bool(product(first).any()):
            return np.zeros(k)  # a random vector is in the kernel: there is no curvature, and Lanczos cannot start
        operator = LinearOperator(
            (n, n), matvec=lambda v: product(torch.from_numpy(v.reshape(-1).copy())).numpy(), dtype=np.float64
        )
        try:
            found = eigsh(
                operator, k=k, which="LA", v0=first.numpy(), tol=tolerance, maxiter=RESTARTS, return_eigenvectors=False
            )
        except ArpackNoConvergence as error:
            raise RuntimeError(
                f"Lanczos found {len(error.eigenvalues)} of {k} eigenvalues to {tolerance:g}: pass a larger tolerance"
            ) from error
    return np.sort(found)[::-1].copy()


def chosen_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter] | None) -> list[nn.Parameter]:
    """The parameters to differentiate or perturb: given ones, checked to be the model's own, or all that train."""
    if parameters is None:
        chosen = [p for p in model.parameters() if p.requires_grad]
    else:
        own = {id(p) for p in model.parameters()}
        strangers = [name for name, p in parameters.items() if id(p) not in own]
        if strangers:
            raise ValueError(
                f"{strangers[0]} is not a parameter of this model: pass prunable_weights of the same model"
            )
        frozen = [name for name, p in parameters.items() if not p.requires_grad]
        if frozen:
            raise ValueError(f"{frozen[0]} does not require a gradient: call requires_grad_() on it, or leave it out")
        chosen = list({id(p): p for p in parameters.values()}.values())
    if not chosen:
        raise ValueError("no parameter to measure: the model has none that requires a gradient")
    if any(p.dtype not in (torch.float32, torch.float64) for p in chosen):
        raise ValueError("curvature is lost in half precision: convert the model with .float() first")
    return chosen


def counted(examples: int) -> int:
    """How many examples all batches had, above 0; ValueError else."""
    if not examples > 0:
        raise ValueError(f"the loss counts {examples} examples: it returns (summed loss, how many examples it sums)")
    return examples


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """The whole model in eval mode (dropout off, BatchNorm by its running statistics); every flag is put back."""
    flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


@contextmanager
def _products(
    model: nn.Module, loss: Loss, batches: Sequence[Any], parameters: list[nn.Parameter]
) -> Iterator[Callable[[Tensor], Tensor]]:
    """v -> H v, both (n,) float64 on the CPU, H the Hessian of the mean loss over all batches."""
    if not batches:
        raise ValueError("batches is empty: a loss needs at least one batch (a generator that was already consumed?)")
    sizes = [p.numel() for p in parameters]

    def product(vector: Tensor) -> Tensor:
        parts = [v.view(p.shape).to(p) for v, p in zip(vector.split(sizes), parameters, strict=True)]
        total, count = torch.zeros(sum(sizes), dtype=torch.float64), 0
        for batch in batches:
            summed, examples = loss(model, batch)
            total += _product(summed, parameters, parts)
            count += examples
        if not bool(total.isfinite().all()):
            raise ValueError("the loss or its curvature is NaN or inf: the run diverged, or a batch is damaged")
        return total / counted(count)

    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield product


def _product(summed: Tensor, parameters: list[nn.Parameter], vector: list[Tensor]) -> Tensor:
    """One batch's H v, not yet divided. -> (n,)"""
    if not summed.requires_grad:
        raise ValueError("the loss does not depend on the parameters: it must not be computed under no_grad")
    if not bool(summed.isfinite()):
        raise ValueError("the loss is NaN or inf: the run diverged, or a batch is damaged")
    gradients = torch.autograd.grad(summed, parameters, create_graph=True, materialize_grads=True)
    slope = torch.stack([(g * v).sum() for g, v in zip(gradients, vector, strict=True)]).sum()
    if not slope.requires_grad:  # a loss linear in all parameters
        return torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    curvature = torch.autograd.grad(slope, parameters, materialize_grads=True)
    return torch.cat([c.reshape(-1).double().cpu() for c in curvature])
