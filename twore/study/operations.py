"""Counting a model's multiply-adds, from the operations of one forward pass on one example.

Works for any model: the calls of torch's functions are seen as they happen, wherever they stand (in modules, written
out in `forward`, with a tied weight). Counted are products: convolutions, linear maps, matrix products, attention.
Normalisation, activations and sums are not; recurrent cells and einsum are not either. torch has a fuller counter
(torch.utils.flop_counter, which a test compares with); it imports its compiler first, which a plan cannot wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def forward_operations(model: nn.Module, inputs: Tensor | tuple[Any, ...]) -> int:
    """Multiply-adds of `model(inputs)`, or of `model(*inputs)` for a tuple; the model is left in eval mode."""
    model.eval()
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    with _Counter() as counter:  # with gradients on: without them torch may take fused paths that hide the operations
        model(*given)
    return counter.total


class _Counter(TorchFunctionMode):
    """Sums the multiply-adds of the functions called while it is active."""

    total = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in _COUNTS:
            self.total += _COUNTS[function](result, *args, *(kwargs or {}).values())
        return result


# Shape letters: B batch, C channels, E embedding, L and S queries and keys. `out` is the result; then the call's own.


def _linear(out: Tensor, input: Tensor, weight: Tensor, *_: Any) -> int:
    return out.numel() * weight.shape[-1]


def _conv(out: Tensor, input: Tensor, weight: Tensor, *_: Any) -> int:
    return out.numel() // weight.shape[0] * weight.numel()  # every output position uses every weight once


def _conv_transpose(out: Tensor, input: Tensor, weight: Tensor, *_: Any) -> int:
    return input.numel() // weight.shape[0] * weight.numel()  # every input position uses every weight once


def _product(out: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return out.numel() * a.shape[-1]


def _sum_and_product(out: Tensor, input: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return out.numel() * a.shape[-1]


def _attention(out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    return query.numel() * key.shape[-2] + out.numel() * key.shape[-2]  # (B, L, E) x (B, E, S), (B, L, S) x (B, S, E)


def _packed_attention(out: tuple[Tensor, Any], query: Tensor, key: Tensor, value: Tensor, width: int, *_: Any) -> int:
    keys = key.shape[0]  # (L, B, E): nn.MultiheadAttention calls it with the sequence first
    projections = sum(x.numel() for x in (query, key, value, out[0])) * width
    return projections + 2 * query.numel() * keys


_COUNTS: dict[Any, Callable[..., int]] = {
    F.linear: _linear,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _conv),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _conv_transpose),
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm), _product),
    Tensor.__matmul__: _product,
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _sum_and_product),
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _packed_attention,
}
