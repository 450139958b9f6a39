"""Folded layers against the same layers one by one; which layers are folded; memory orders of what is laid together."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from twore.seeds import seed_everything
from twore.training import Stack
from twore.training.folding import can_fold
from twore.training.own_batches import on_channels, stacked

IMAGE, ROW = (5, 4, 6, 6), (5, 4)  # (B, C, H, W), (B, F)


class Layers(nn.Sequential):
    """Layers that say they are channelwise."""

    channelwise = True


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
    "dilated convolution without bias": (lambda: nn.Conv2d(4, 3, (3, 2), dilation=2, bias=False), IMAGE),
    "batch norm of images": (lambda: nn.BatchNorm2d(4, eps=0.1, momentum=0.3), IMAGE),
    "batch norm that keeps its statistics": (lambda: nn.BatchNorm2d(4, momentum=0.0), IMAGE),
    "batch norm of rows": (lambda: nn.BatchNorm1d(4), ROW),
    "linear": (lambda: nn.Linear(4, 3), ROW),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), ROW),
}


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_folded_layer_does_what_its_layers_do_alone(case: str, own: bool, width: int) -> None:
    make, shape = CASES[case]
    seed_everything(0)
    models = [Layers(make()).double() for _ in range(width)]
    for model in models:
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                nn.init.uniform_(value, 0.5, 1.5)
    alone, stack = deepcopy(models), Stack(models)
    assert stack.folded
    inputs = torch.randn(width if own else 1, *shape, dtype=torch.float64)
    for training in (True, False):
        stack.module.train(training)
        out = stack.module(inputs.transpose(0, 1).flatten(1, 2)).unflatten(1, (width, -1))  # (B, K, C, ...)
        for k, model in enumerate(alone):
            torch.testing.assert_close(out[:, k], model.train(training)(inputs[k if own else 0]))
    for one, other in zip(alone, models):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value)


class Scaled(Layers):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4))
        self.scale = nn.Parameter(torch.ones(4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=None), nn.GroupNorm(2, 4), nn.Embedding(4, 4), Scaled(),
    ],
)  # fmt: skip
def test_a_model_with_a_layer_of_another_kind_is_not_folded(layer: nn.Module) -> None:
    assert can_fold(Layers(nn.Conv2d(3, 4, 3), nn.ReLU()))
    assert not can_fold(Layers(nn.Conv2d(3, 4, 3), layer))
    assert not can_fold(nn.Sequential(nn.Conv2d(3, 4, 3)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)


def test_tied_weights_stay_one_and_frozen_ones_frozen() -> None:
    stack = Stack([Tied(), Tied()])
    module = stack.module
    assert module.second.weight is module.first.weight
    assert len(list(module.parameters())) == 3
    assert [p.requires_grad for p in (module.first.weight, module.first.bias, module.second.bias)] == [
        True,
        False,
        True,
    ]
    for k, model in enumerate(stack.models):
        assert model.second.weight is model.first.weight
        assert model.first.weight.data_ptr() == module.first.weight[k].data_ptr()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_what_is_laid_together_keeps_its_memory_order(order: torch.memory_format) -> None:
    images: list[Tensor] = [torch.randn(3, 4, 5, 6).contiguous(memory_format=order) for _ in range(2)]
    together = stacked(images)
    assert all(one.is_contiguous(memory_format=order) for one in together)
    found = on_channels(together)
    assert found.shape == (3, 8, 5, 6) and found.is_contiguous(memory_format=order)
    for k, one in enumerate(images):
        assert torch.equal(found[:, 4 * k : 4 * k + 4], one)
