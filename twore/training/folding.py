"""Folding: K stacked models laid side by side on the channel axis, so that one large operation does the work of K.

A layer of a folded model takes x (B, K*C, ...), model k's channels at k*C, or x (B, C, ...) that all models share (the
first layer's input), and gives (B, K*C', ...). Its parameters keep their names and the axis K in front; a view of them
is what the operation takes. Statistics of BatchNorm are sums over one channel each, so they stay a model's own.

K models, B batch, C channels, F features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def can_fold(model: nn.Module) -> bool:
    """Whether a model can be folded: it says so, and all its layers with weights are of kinds known here.

    A model says so with `channelwise = True`: between its layers it treats every channel alike and never mixes them
    (pointwise functions, sums of equal shapes, means over positions), and it returns (B, F).
    """
    return bool(getattr(model, "channelwise", False)) and all(
        _kind(module) is not None
        for module in model.modules()
        if any(p is not None for p in (*module._parameters.values(), *module._buffers.values()))
    )


def fold(stacked: nn.Module) -> None:
    """Replace, in place, the layers of a model whose parameters have the axis K in front."""
    for name, layer in list(stacked.named_children()):
        kind = _kind(layer)
        if kind is None:
            fold(layer)
        else:
            setattr(stacked, name, kind(layer))


class FoldedConv2d(nn.Module):
    """One convolution of K groups; of K times as many filters where the models share their input."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # (K, C', C, kh, kw), (K, C')
        self.channels = layer.in_channels
        self.stride: Any = layer.stride
        self.padding: Any = layer.padding
        self.dilation: Any = layer.dilation

    def forward(self, x: Tensor) -> Tensor:
        """(B, K*C, H, W) or (B, C, H, W) -> (B, K*C', H', W')"""
        groups = x.shape[1] // self.channels
        bias = None if self.bias is None else self.bias.flatten()
        weight = self.weight.flatten(0, 1)  # a view: memory is K after K
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class FoldedBatchNorm(nn.Module):
    """One BatchNorm over the channels of all models."""

    running_mean: Tensor  # (K, C)
    running_var: Tensor  # (K, C)
    num_batches_tracked: Tensor  # (K,)

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # (K, C) each
        self.momentum, self.eps = layer.momentum or 0.0, layer.eps  # None is not folded: see _kind
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(layer, name))

    def forward(self, x: Tensor) -> Tensor:
        """(B, K*C, ...) -> the same"""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            _spread(x, mean), mean.flatten(), variance.flatten(), self.weight.flatten(), self.bias.flatten(),
            self.training, self.momentum, self.eps,
        )  # fmt: skip


class FoldedLinear(nn.Module):
    """K matrix products in one."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # (K, F', F), (K, F')

    def forward(self, x: Tensor) -> Tensor:
        """(B, K*F) or (B, F) -> (B, K*F')"""
        width, _, features = self.weight.shape
        if x.shape[1] == features:
            return F.linear(x, self.weight.flatten(0, 1), None if self.bias is None else self.bias.flatten())
        each, weight = x.unflatten(1, (width, features)).transpose(0, 1), self.weight.transpose(1, 2)  # (K, B, F)
        out = torch.bmm(each, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], each, weight)
        return out.transpose(0, 1).flatten(1)


def _spread(x: Tensor, like: Tensor) -> Tensor:
    """x for all models, where they share it. (B, C, ...) or (B, K*C, ...), (K, C) -> (B, K*C, ...)"""
    width, channels = like.shape
    return x.repeat(1, width, *[1] * (x.ndim - 2)) if x.shape[1] == channels != width * channels else x


def _kind(layer: nn.Module) -> type | None:
    """The folded kind of a layer, if there is one; its own options must be what the folded one does."""
    if type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros":
        return FoldedConv2d
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if type(layer) in norms and layer.track_running_stats and layer.affine and layer.momentum is not None:
        return FoldedBatchNorm
    return FoldedLinear if type(layer) is nn.Linear else None
