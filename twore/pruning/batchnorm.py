"""BatchNorm recalibration: fresh running statistics for a pruned network, from forward passes only.

Pruning shifts every activation, while BatchNorm still normalises with the dense network's running mean and variance;
re-estimating them recovers part of the loss at once (Li et al. 2020, EagleEye, section 3.3: "adaptive BN").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate_batchnorm(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any] | None = None
) -> int:
    """Replace every BatchNorm's running mean and variance by their plain average over `batches`.

    batches: model inputs on the model's device; a mapping is passed as keywords, and of a tuple or list the first item
        is the input (a data loader's (inputs, targets)). Every batch weighs the same.
    forward: runs the model on one batch instead; what it returns is not used.
    Returns the number of layers recalibrated; a model without BatchNorm is left as it is: 0, and no batch is read.

    Only the BatchNorm layers are in training mode meanwhile: dropout stays off, weights do not change. Momentum and
    every training flag are put back; after an error, or no batch at all (ValueError), the statistics are too.
    `num_batches_tracked` then counts these batches.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    training = {module: module.training for module in model.modules()}
    momentum = {layer: layer.momentum for layer in layers}
    statistics = {layer: {name: value.clone() for name, value in layer.named_buffers()} for layer in layers}
    done = False
    try:
        for module in training:
            module.training = False
        for layer in layers:
            layer.training = True
            layer.momentum = None  # a cumulative average
            layer.reset_running_stats()
        count = 0
        for batch in batches:
            (forward or _forward)(model, batch)
            count += 1
        if count == 0:
            raise ValueError("batches is empty: BatchNorm statistics need at least one batch")
        done = True
    finally:
        for module, flag in training.items():
            module.training = flag
        for layer in layers:
            layer.momentum = momentum[layer]
            if not done:
                for name, value in layer.named_buffers():
                    value.copy_(statistics[layer][name])
    return len(layers)


def _forward(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    else:
        model(batch[0] if isinstance(batch, list | tuple) else batch)
