"""The counterpart of BatchNorm recalibration for networks without BatchNorm: pruned layers speak as loud as before.

Magnitude pruning shrinks and shifts every output of a layer, and without BatchNorm nothing downstream re-normalises it
unit by unit (LayerNorm does so over all units at once). Here each output unit of a pruned layer gets the gain, and
where the layer has a bias the shift, that give it the dense network's mean and standard deviation on a few batches: the
statistics that Jordan et al. 2023 (REPAIR) reset after interpolating networks.

    masks = make_masks(prunable_weights(model), 0.8)
    statistics = output_statistics(dense, batches, forward, masks)          # once for all ratios
    apply_masks(model, masks)
    rescale_outputs(model, statistics, batches, forward, masks)

Layers are repaired in their order of execution, each on the inputs that the repaired layers before it give: repairing
all at once from one measurement makes things worse. Measured on a small encoder-decoder (2+2 layers, d 48, vocabulary
24, a reversing task; dense loss 0.13, 99.8 % of tokens right), 256 calibration sentences, loss and % right after
pruning to a ratio, before any fine-tuning:

    ratio                      0.3           0.5           0.7           0.8           0.9
    as pruned              0.25  97.5    1.26  57.5    3.04  19.3    3.51  10.4    3.62   5.1
    all at once            0.27  96.2    2.71  37.5    7.65   4.8    9.11   4.4   11.98   4.3
    in order               0.21  98.1    0.73  78.6    2.39  38.5    3.66  19.1    5.10   9.0
    without the last       0.22  97.8    0.81  76.3    2.13  37.8    2.86  20.0    3.38   8.7
    gains only             0.22  97.8    0.84  74.4    2.95  30.6    4.27  16.2    6.00   7.4
    shifts only            0.23  97.9    1.03  66.1    2.70  22.8    3.22  15.2    3.36   7.9

So: gains and shifts, in order. The prediction layer ("the last") with the others where the score counts; left out of
`names` where the loss counts at heavy ratios, since as loud as before and mostly wrong costs more than wrong and quiet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]

SILENT = 1e-6  # of a layer's largest standard deviation: a unit below it is constant, and has no gain; our choice


@dataclass(frozen=True)
class OutputStatistics:
    """What a layer put out: mean and standard deviation of each unit, (units,) float64, and its calls a forward."""

    mean: Tensor
    std: Tensor
    calls: float


@torch.no_grad()
def output_statistics(
    model: nn.Module, batches: Iterable[Any], forward: Forward, names: Iterable[str]
) -> dict[str, OutputStatistics]:
    """Mean and standard deviation of every output unit of the named layers over all batches, in order of execution.

    names: weights ("fc1.weight", as masks are named) or modules ("fc1") that are nn.Linear, transformers' Conv1D or
        nn.Conv1d/2d/3d; known by module name in the result.
    batches: read once. forward: runs the model on one batch; what it returns is not used. All positions count, padded
        ones too, so batches of equal lengths are the better ones.
    The model is in eval mode meanwhile and put back. ValueError for no batch, a name that is no such layer, and a layer
    that the forward pass does not call.
    """
    layers = _layers(model, names)
    sums: dict[str, _Sums] = {}

    def measure(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        sums.setdefault(name, _Sums()).add(_rows(module, output))

    count = 0
    with _eval(model), _hooked(layers, measure):
        for batch in batches:
            forward(model, batch)
            count += 1
    if count == 0:
        raise ValueError("batches is empty: output statistics need at least one batch")
    silent = [name for name in layers if name not in sums]
    if silent:
        raise ValueError(
            f"the forward pass does not call {silent[0]} as a layer: leave it out of names (nn.MultiheadAttention "
            "reads its projections' weights itself)"
        )
    return {name: total.result(count) for name, total in sums.items()}


@torch.no_grad()
def rescale_outputs(
    model: nn.Module,
    dense: nn.Module | Mapping[str, OutputStatistics],
    batches: Iterable[Any],
    forward: Forward,
    names: Iterable[str],
) -> int:
    """Give each output unit of the named layers the dense model's mean and standard deviation on `batches`, in place.

    model: the pruned model; a unit's weights are multiplied by one number, so zeros stay zero, and its bias is set. A
        layer without a bias gets the standard deviation only. A unit that is constant in either model (all its weights
        removed, say) keeps its weights and gets the mean only.
    dense: the unpruned model (not changed), or its `output_statistics` on the same batches.
    batches: model inputs on the model's device. One large batch costs one forward pass in all; with several, each
        layer costs a pass over all of them up to that layer.
    forward, names: as `output_statistics`. Name the pruned layers; on the prediction layer see the module's text.

    Returns the number of layers. Everything but weights and biases of these layers stays as it was; after an error
    they do too. ValueError as `output_statistics`, and for a weight that is shared with another module.
    """
    names, batches = list(names), list(batches)
    layers = _layers(model, names)
    _check_unshared(model, layers)
    target = output_statistics(dense, batches, forward, names) if isinstance(dense, nn.Module) else dict(dense)
    missing = [name for name in layers if name not in target]
    if missing:
        raise ValueError(f"dense has no statistics of {missing[0]}: take output_statistics of the same names")
    if not batches:
        raise ValueError("batches is empty: output statistics need at least one batch")
    before = {name: [p.detach().clone() for p in _own(layer)] for name, layer in layers.items()}
    ordered = {name: layers[name] for name in target if name in layers}  # statistics come in order of execution
    done = False
    try:
        with _eval(model):
            if len(batches) == 1 and all(target[name].calls == 1 for name in ordered):
                _in_flight(model, ordered, target, batches[0], forward)
            else:
                _layer_by_layer(model, ordered, target, batches, forward)
        done = True
    finally:
        if not done:
            for name, layer in layers.items():
                for parameter, value in zip(_own(layer), before[name], strict=True):
                    parameter.copy_(value)
    return len(layers)


def _in_flight(
    model: nn.Module, layers: dict[str, nn.Module], target: dict[str, OutputStatistics], batch: Any, forward: Forward
) -> None:
    """Repair every layer as the forward pass comes by, and hand on what the repaired layer would have put out."""

    def repair(name: str, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        total = _Sums()
        total.add(_rows(module, output))
        gain, shift = _repair(module, total.result(1), target[name])
        shape = [-1] + [1] * (output.ndim - 2) if _is_conv(module) else [-1]
        return output * gain.to(output).view(shape) + shift.to(output).view(shape)

    with _hooked(layers, repair):
        forward(model, batch)


def _layer_by_layer(
    model: nn.Module,
    layers: dict[str, nn.Module],
    target: dict[str, OutputStatistics],
    batches: Sequence[Any],
    forward: Forward,
) -> None:
    """Measure a layer over all batches, repair it, go on to the next: the same result for any number of batches."""
    for name, layer in layers.items():
        total, once = _Sums(), target[name].calls == 1

        def measure(name: str, module: nn.Module, inputs: Any, output: Tensor, total: _Sums, once: bool) -> None:
            total.add(_rows(module, output))
            if once:
                raise _Enough  # nothing that comes after this layer matters

        with _hooked({name: layer}, partial(measure, total=total, once=once)):
            for batch in batches:
                with suppress(_Enough):
                    forward(model, batch)
        _repair(layer, total.result(len(batches)), target[name])


def _repair(layer: nn.Module, now: OutputStatistics, wanted: OutputStatistics) -> tuple[Tensor, Tensor]:
    """Change a layer's weight and bias; returns gain and shift, (units,): new output = gain * output + shift."""
    if not bool(now.std.isfinite().all() & wanted.std.isfinite().all()):
        raise ValueError("a layer's outputs hold NaN or inf: the run diverged, or a batch is damaged")
    loud = (now.std > SILENT * now.std.max()) & (wanted.std > SILENT * wanted.std.max())
    gain = torch.where(loud, wanted.std / torch.where(loud, now.std, 1.0), 1.0)
    weight, bias = _own(layer)[0], layer._parameters.get("bias")
    units_last = not isinstance(layer, nn.Linear) and not _is_conv(layer)  # transformers' Conv1D is (in, out)
    rows = gain if units_last else gain.view([-1] + [1] * (weight.ndim - 1))
    weight.mul_(rows.to(weight))
    if bias is None:
        return gain, torch.zeros_like(gain)
    shift = wanted.mean - gain * now.mean
    bias.copy_(gain.to(bias) * bias + shift.to(bias))
    return gain, shift


class _Enough(Exception):  # noqa: N818  a signal, not an error
    """Ends a forward pass after the layer that is measured."""


class _Sums:
    """Count, sum and sum of squares of rows (r, units), around the first rows' mean; divided once."""

    def __init__(self) -> None:
        self.count, self.calls = 0, 0
        self.center: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        wide = rows.double()
        if self.center is None:
            self.center = wide.mean(0)
            self.sum, self.squares = torch.zeros_like(self.center), torch.zeros_like(self.center)
        wide = wide - self.center
        self.sum += wide.sum(0)
        self.squares += wide.square().sum(0)
        self.count += len(wide)
        self.calls += 1

    def result(self, batches: int) -> OutputStatistics:
        assert self.center is not None  # a layer that did not run was refused before
        mean = self.sum / self.count
        std = (self.squares / self.count - mean.square()).clamp_min(0).sqrt()
        return OutputStatistics(self.center + mean, std, self.calls / batches)


def _layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Module name -> layer, for weight names or module names."""
    modules = dict(model.named_modules())
    found = {}
    for given in names:
        name = given.removesuffix(".weight")
        layer = modules.get(name)
        if layer is None or not (isinstance(layer, nn.Linear) or _is_conv(layer) or _is_transformers_conv1d(layer)):
            what = "there is no such layer" if layer is None else f"it is a {type(layer).__name__}"
            raise ValueError(f"cannot rescale {given}: {what}; name linear layers and convolutions")
        found[name] = layer
    if not found:
        raise ValueError("names is empty: name the pruned layers, as the masks do")
    return found


def _is_conv(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _is_transformers_conv1d(layer: nn.Module) -> bool:
    return any(c.__name__ == "Conv1D" and c.__module__.split(".")[0] == "transformers" for c in type(layer).__mro__)


def _check_unshared(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    users: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users.setdefault(id(parameter), set()).add(id(module))
    for name, layer in layers.items():
        if any(len(users[id(parameter)]) > 1 for parameter in _own(layer)):
            raise ValueError(f"{name} shares a parameter with another module: untie it, or leave it out of names")


def _own(layer: nn.Module) -> list[nn.Parameter]:
    """Weight, and bias where there is one."""
    return [p for p in (layer._parameters.get("weight"), layer._parameters.get("bias")) if p is not None]


def _rows(layer: nn.Module, output: Tensor) -> Tensor:
    """One row a position. (..., units), of a convolution (B, units, ...) -> (r, units)"""
    return output.detach().movedim(1, -1).flatten(0, -2) if _is_conv(layer) else output.detach().flatten(0, -2)


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], hook: Callable[..., Tensor | None]) -> Iterator[None]:
    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag
