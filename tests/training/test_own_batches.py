"""Stacks whose models differ in their seed, against the same models trained one by one, each with its own batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from test_stacking import ADAM, SPEC, Rows, images, plain_resnet, resnet, sentences, transformer
from torch import Tensor, nn
from toy import CPU

from twore.training import Run, Stack, StackedData, StackEpoch, Training, make_average, train
from twore.training.own_batches import OwnNoise, side_by_side
from twore.training.stacking import can_fold

SEEDS = (3, 0, 5)
EMA = replace(SPEC, ema=0.5)


class WithDropout(nn.Module):
    """Channelwise, with noise between its layers."""

    channelwise = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.norm(self.conv(x)), 0.3, self.training).mean(dim=(2, 3)))


def noisy(seed: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(seed)
    return WithDropout().to(dtype).to(memory_format=torch.channels_last)


CASES: dict[str, tuple[Any, Any, Training]] = {
    "folded": (resnet, images, SPEC),
    "folded, averaged": (resnet, images, EMA),
    "folded, clipped": (resnet, images, replace(SPEC, clip=0.5, accumulate=2)),
    "mapped convolutions": (plain_resnet, images, EMA),
    "transformer with dropout": (transformer, sentences, replace(ADAM, ema=0.5)),
}


def alone(build: Any, data: Rows, spec: Training, dtype: torch.dtype, seed: int) -> tuple[nn.Module, Any, list[float]]:
    model = build(seed, dtype)
    average = make_average(model, spec, data)  # type: ignore[arg-type]
    records = train(Run(model, data, spec, "dense", seed, CPU, average=average))
    return model, average, [record.train_loss for record in records]


def together(
    build: Any, data: Rows, spec: Training, dtype: torch.dtype, seeds: tuple[int, ...] = SEEDS, **options: Any
) -> tuple[Stack, Any, list[StackEpoch]]:
    stack = Stack([build(seed, dtype) for seed in seeds])
    average = make_average(stack.module, spec, data)  # type: ignore[arg-type]
    both = StackedData(data, stack)  # type: ignore[arg-type]
    run = Run(stack.module, both, spec, "dense", seeds, CPU, average=average, width=stack.width)
    return stack, average, train(run, **options)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_each_model_trains_as_it_does_alone(case: str, dtype: torch.dtype) -> None:
    build, rows, spec = CASES[case]
    data = rows(dtype)
    stack, average, records = together(build, data, spec, dtype)
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 2e-3, "atol": 3e-4}
    for k, seed in enumerate(SEEDS):
        model, mean, losses = alone(build, data, spec, dtype, seed)
        assert [record.each[k] for record in records] == pytest.approx(losses, rel=1e-4)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(stack.models[k].state_dict()[name], value, **close)
        if mean is not None:
            for name, value in mean.module.state_dict().items():
                torch.testing.assert_close(average.module.state_dict()[name][k], value, **close)
    assert stack.folded == can_fold(build(0, dtype))


@pytest.mark.parametrize("build", [resnet, transformer])
def test_a_stack_resumes_exactly(build: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    data = (images if build is resnet else sentences)(torch.float32)
    spec = replace(EMA if build is resnet else replace(ADAM, ema=0.5), epochs=4)
    whole, mean, records = together(build, data, spec, torch.float32)

    def stop(record: Any) -> dict[str, Any]:
        if record.epoch == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        together(build, data, spec, torch.float32, after_epoch=stop, state=tmp_path / "state")
    stack, average, resumed = together(build, data, spec, torch.float32, state=tmp_path / "state")
    assert [r.each for r in resumed] == [r.each for r in records] and [r.epoch for r in resumed] == [1, 2, 3, 4]
    for one, other in ((whole.module, stack.module), (mean, average)):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_a_folded_model_does_not_depend_on_the_others_nor_on_its_place() -> None:
    def last(seeds: tuple[int, ...], of: int) -> dict[str, Tensor]:
        stack, _, _ = together(resnet, images(torch.float32), SPEC, torch.float32, seeds)
        return stack.models[seeds.index(of)].state_dict()

    first, elsewhere, copied = last((7, 1, 2), 7), last((3, 4, 7), 7), last((7, 7, 7), 7)
    for other in (elsewhere, copied):
        assert all(torch.equal(a, b) for a, b in zip(first.values(), other.values()))


class Pair(NamedTuple):
    x: Tensor
    extra: dict[str, Any]


@dataclass
class Nested(Rows):
    """Batches of tensors in tuples and mappings, with something that is no tensor."""

    uneven: bool = False
    short: bool = False

    def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
        for number, (x, y) in enumerate(super().epoch(batch_size, seed)):
            if not (self.short and seed and number):
                yield [Pair(x[:, : 1 + seed] if self.uneven else x, {"y": y, "words": "no tensor"}), 7]


def test_batches_keep_their_nesting() -> None:
    data = Nested(torch.arange(12.0).view(6, 2), torch.arange(6))
    found = list(side_by_side(data, 4, (0, 1, 0)))  # type: ignore[arg-type]
    assert [t.shape for t in found[0].tensors] == [(3, 4, 2), (3, 4)]
    for k, seed in enumerate((0, 1, 0)):
        for batches, own in zip(found, data.epoch(4, seed), strict=True):
            again = batches.of([t[k] for t in batches.tensors])
            assert type(again[0]) is Pair and again[1] == 7 and again[0].extra["words"] == "no tensor"
            assert torch.equal(again[0].x, own[0].x) and torch.equal(again[0].extra["y"], own[0].extra["y"])


@pytest.mark.parametrize("kind", ["uneven", "short"])
def test_batches_that_differ_in_shape_are_refused(kind: str) -> None:
    data = Nested(torch.zeros(6, 2), torch.arange(6), **{kind: True})
    with pytest.raises(ValueError, match=r"differ in shape.*numerics\.dense_stack 1"):
        list(side_by_side(data, 4, (0, 1)))  # type: ignore[arg-type]


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1) + torch.randn_like(x.flatten(1)))


def test_dropout_in_a_folded_model_is_refused() -> None:
    with pytest.raises(ValueError, match="leave out `channelwise`"):
        together(noisy, images(torch.float32), SPEC, torch.float32)


def test_other_random_numbers_are_refused_rather_than_shared() -> None:
    with pytest.raises(RuntimeError, match="random"):
        together(lambda *_: Drawing(), images(torch.float32), SPEC, torch.float32)


class Folded(WithDropout):
    """Channelwise, and it draws from torch's own generator."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).mean(dim=(2, 3))
        return self.last(x + torch.rand(()).to(x.dtype))


def test_random_numbers_in_a_folded_model_are_refused_too() -> None:
    def build(seed: int, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(seed)
        return Folded().to(dtype)

    with pytest.raises(ValueError, match=r"draws random numbers.*dense_stack 1"):
        together(build, images(torch.float32), SPEC, torch.float32)


@dataclass
class Object:
    x: Tensor


@pytest.mark.parametrize(
    ("other", "words"), [(Object, "holds a Object"), (Tensor.numpy, "holds a ndarray"), (Tensor.tolist, "more than")]
)
def test_batches_that_hold_what_may_differ_are_refused(other: Any, words: str) -> None:
    class Holding(Rows):
        def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
            for x, y in super().epoch(batch_size, seed):
                yield x, other(y)

    data = Holding(torch.arange(12.0).view(6, 2), torch.arange(6))
    with pytest.raises(ValueError, match=rf"{words}.*numerics\.dense_stack 1"):
        list(side_by_side(data, 4, (0, 1)))  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_noise_is_that_of_torch(p: float) -> None:
    x = torch.ones(2, 50)
    with OwnNoise((3, 4), torch.device("cpu")):
        found = torch.func.vmap(lambda row: F.dropout(row, p), randomness="error")(x)
        inside = x.clone()
        torch.func.vmap(lambda row: F.dropout(row, p, inplace=True), randomness="error")(inside)
        idle = torch.func.vmap(lambda row: F.dropout(row, p, training=False), randomness="error")(x)
    assert torch.equal(idle, x)
    for row, other, seed in zip(found, inside, (3, 4)):
        torch.manual_seed(seed)
        alone = F.dropout(x[0], p)
        assert torch.equal(row, alone)
        alone = F.dropout(x[0], p)  # the second that is drawn
        assert torch.equal(other, alone)
