"""Stacks: K models of one architecture that train as one, each with its own weights, masks and statistics.

A stack is a module with the models' parameter names, every parameter and buffer with an axis K in front. It shares
memory with its models: they are views of it, so each is pruned, scored and saved as if it stood alone. Its models see
the same batches and, with dropout, the same noise, as all cells of a fine-tune seed do one by one (twore.seeds); or, in
dense training, each its own (twore.training.own_batches). No sum runs over K, so a model that diverges leaves the
others as they are.

Two ways to run a batch:
- folded    the models lie side by side on the channel axis: one convolution of K groups, one BatchNorm over K*C
            channels, one batched product a linear layer. For models that are `channelwise` (see `can_fold`).
- mapped    `torch.func.vmap` over the task's own loss: any model that vmap takes.
Which is faster where, and how that was measured: docs/performance.md.

K models, B batch, C channels, H and W height and width, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd

from twore.tasks.base import Batch, TaskData
from twore.training.folding import can_fold, fold
from twore.training.own_batches import AllAtOnce, Batches, OwnNoise, on_channels, side_by_side, stacked, without_draws


class Stack:
    """K models as one `module`. models: of one architecture, on one device; from now on views of the module.

    bf16: whether forward passes will run under autocast. ValueError for none, for models that differ in their
    parameters' names or shapes, and for convolutions that are mapped in bf16.
    """

    def __init__(self, models: Sequence[nn.Module], *, bf16: bool = False) -> None:
        if not models:
            raise ValueError("a stack needs at least one model")
        self.models, self.width = list(models), len(models)
        self.module = _joined(self.models)
        self.folded = can_fold(self.models[0])
        if self.folded:
            fold(self.module)
        elif bf16 and any(isinstance(m, _ConvNd) for m in self.module.modules()):
            raise ValueError(  # torch 2.15: autocast does not reach a convolution under vmap, which stays float32
                "convolutions that are not channelwise cannot be stacked in bf16: use numerics.precision float32, or "
                "numerics.stack and numerics.dense_stack 1"
            )


class StackedData:
    """A task's data for training a stack: the same batches or each model its own, and a loss for each model."""

    def __init__(self, data: TaskData, stack: Stack) -> None:
        self._data, self._stack = data, stack
        self._loss = _Loss(stack.module, data)
        self._parameters: dict[str, Tensor] = dict(self._loss.named_parameters())
        self._buffers: dict[str, Tensor] = dict(self._loss.named_buffers())
        self._device = next(stack.module.parameters()).device
        self._noise: AbstractContextManager = nullcontext()
        self.fingerprint, self.splits = data.fingerprint, data.splits

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return self._data.updates(batch_size)

    def epoch(self, batch_size: int, seed: int | tuple[int, ...]) -> Iterator[Batch]:
        """The training set once; with a seed for each model, each in its own order."""
        if isinstance(seed, tuple):
            devices = [self._device] if self._stack.folded else []  # mapped models refuse draws by themselves
            devices = [torch.device("cpu"), *(d for d in devices if d.type != "cpu")]
            return without_draws(side_by_side(self._data, batch_size, seed), devices)
        return self._data.epoch(batch_size, seed)

    def seed_noise(self, seeds: tuple[int, ...]) -> None:
        """From here on each model draws dropout noise from a generator of its own."""
        self._noise = OwnNoise(seeds, self._device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Each model's training loss, summed over its batch, (K,), and the number of a batch's examples."""
        given = batch if isinstance(batch, Batches) else None
        loss = self._folded_loss if self._stack.folded else self._mapped_loss
        with self._noise:
            return loss(model, batch, given)

    def _folded_loss(self, module: nn.Module, batch: Batch, own: Batches | None) -> tuple[Tensor, int]:
        """The models run once, side by side; the task's loss is mapped over their outputs."""
        count = 0

        def one(k: Tensor, *tensors: Tensor) -> Tensor:
            nonlocal count
            outputs = _Outputs(module, self._stack.width, k, self._noise if own else None)
            loss, count = self._data.loss(outputs, own.of(tensors) if own else batch)  # type: ignore[arg-type]
            return loss

        each = torch.arange(self._stack.width, device=self._device)
        losses = vmap(one, randomness="error" if own else "same")(each, *(own.tensors if own else ()))
        return losses, count

    def _mapped_loss(self, module: nn.Module, batch: Batch, own: Batches | None) -> tuple[Tensor, int]:
        """The task's loss, model and all, mapped over the stacked parameters and buffers, and batches if each has its
        own. Random numbers other than dropout are an error then: models would share them."""
        count = 0

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *tensors: Tensor) -> Tensor:
            nonlocal count
            given = own.of(tensors) if own else batch
            loss, count = functional_call(self._loss, (parameters, buffers), (given,))
            return loss

        with _attention(self._device):
            mapped = vmap(one, randomness="error" if own else "same")
            losses = mapped(self._parameters, self._buffers, *(own.tensors if own else ()))
        return losses, count


class _Loss(nn.Module):
    """A task's loss as a module, so that it can be called with other weights."""

    def __init__(self, module: nn.Module, data: TaskData) -> None:
        super().__init__()
        self.module, self._data = module, data

    def forward(self, batch: Batch) -> tuple[Tensor, int]:
        return self._data.loss(self.module, batch)


class _Outputs:
    """Stands for model k in a task's loss, k being mapped: runs all models at once and gives the outputs of one."""

    def __init__(self, module: nn.Module, width: int, k: Tensor, noise: AbstractContextManager | None) -> None:
        self._module, self._width, self._k = module, width, k
        self._noise = noise  # where each model has its own input: what its layers draw from

    def __call__(self, x: Tensor) -> Tensor:
        if self._noise is not None:  # x is mapped
            return AllAtOnce.apply(x, self._run_own)
        return self._run(x)[self._k]  # (B, F) of each k; neither x nor the weights are mapped: a plain forward pass

    def _run_own(self, x: Tensor) -> Tensor:
        with self._noise or nullcontext():  # again: torch has left it, to call us
            return self._run(on_channels(x))  # (K, B, C, ...) -> (K, B, F)

    def _run(self, x: Tensor) -> Tensor:
        return self._module(x).unflatten(1, (self._width, -1)).transpose(0, 1)  # (B, K*F) -> (K, B, F)


def _attention(device: torch.device) -> AbstractContextManager:
    """torch 2.15 has no batching rule for its fused attention on a CPU, and would go model by model."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


@torch.no_grad()
def _joined(models: list[nn.Module]) -> nn.Module:
    """A copy of the first model whose parameters and buffers hold all of the models', which become views of it."""
    names = [{n: (p.shape, p.dtype) for n, p in model.state_dict(keep_vars=True).items()} for model in models]
    if any(other != names[0] for other in names):
        raise ValueError("models that are stacked must be of one architecture: their weights differ in name or shape")
    joined = copy.deepcopy(models[0])
    known: dict[int, nn.Parameter] = {}  # a tied parameter stays one
    for parts in zip(joined.modules(), *(model.modules() for model in models)):
        whole, each = parts[0], parts[1:]
        for name, parameter in each[0]._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in known:
                values = [module._parameters[name] for module in each]
                known[id(parameter)] = nn.Parameter(stacked(values), requires_grad=parameter.requires_grad)
                for k, value in enumerate(values):
                    value.data = known[id(parameter)].data[k]  # type: ignore[union-attr]
            whole._parameters[name] = known[id(parameter)]
        for name, buffer in each[0]._buffers.items():
            if buffer is not None:
                whole._buffers[name] = stacked([module._buffers[name] for module in each])
                for k, module in enumerate(each):
                    module._buffers[name] = whole._buffers[name][k]  # type: ignore[index]
    return joined


@torch.no_grad()
def clip_each(parameters: Sequence[Tensor], bound: float) -> None:
    """Bound the norm of each model's gradient, as `clip_grad_norm_` does for one. parameters: (K, ...) each."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)  # (K,)
    factor = (bound / (norms + 1e-6)).clamp(max=1.0)  # 1e-6: torch.nn.utils.clip_grad_norm_
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))
