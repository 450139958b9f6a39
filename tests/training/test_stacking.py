"""Stacks against the same models trained one by one: equal masks, equal weights within rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import CPU, ToyTask

from twore.models import PreResNet, transformer_base
from twore.models.transformer import teacher_forced
from twore.pruning.spec import Pruning
from twore.seeds import seed_everything
from twore.training import DivergedError, Pruner, Run, Stack, StackedData, StackedPruner, StackEpoch, Training, train
from twore.training.folding import can_fold
from twore.training.stacking import clip_each

RATIOS = (0.3, 0.6, 0.9)
SPEC = Training(epochs=2, batch_size=8, lr=0.05, schedule="constant", drops=())
ADAM = replace(SPEC, optimizer="adam", lr=1e-3, weight_decay=0.0, eps=1e-3)  # a smaller eps makes steps of rounding:
# the gradient of a key's bias is zero but for it


@dataclass
class Rows:
    """TaskData of inputs and labels, computed in the precision of the inputs."""

    x: Tensor
    y: Tensor
    fingerprint: str = "rows"
    splits: tuple[str, ...] = ("test",)

    def updates(self, batch_size: int) -> int:
        return -(-len(self.y) // batch_size)

    def epoch(self, batch_size: int, seed: int) -> Iterator[Any]:
        for index in torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed)).split(batch_size):
            yield self.x[index], self.y[index]

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


class Sentences(Rows):
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        source, wanted = batch
        logits = teacher_forced(model, source, wanted)
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum"), wanted.numel()


def images(dtype: torch.dtype) -> Rows:
    seed_everything(1)
    x = torch.randn(20, 3, 8, 8, dtype=dtype).to(memory_format=torch.channels_last)
    return Rows(x, torch.arange(20) % 10)


def sentences(dtype: torch.dtype) -> Rows:
    seed_everything(1)
    return Sentences(torch.randint(4, 30, (16, 6)), torch.randint(4, 30, (16, 5)))


def resnet(seed: int, dtype: torch.dtype) -> nn.Module:
    seed_everything(seed)
    return PreResNet(8, width=8).to(dtype).to(memory_format=torch.channels_last)


def plain_resnet(seed: int, dtype: torch.dtype) -> nn.Module:
    model = resnet(seed, dtype)
    model.channelwise = False  # type: ignore[assignment]
    return model


def transformer(seed: int, dtype: torch.dtype, norm: str = "post", dropout: float = 0.1) -> nn.Module:
    seed_everything(seed)
    return transformer_base(30, d_model=8, layers=1, heads=2, ffn=16, norm=norm, dropout=dropout).to(dtype)


def prenorm(seed: int, dtype: torch.dtype) -> nn.Module:
    return transformer(seed, dtype, "pre", 0.0)


CASES: dict[str, tuple[Any, Any, Training, tuple[str, ...]]] = {
    "folded": (resnet, images, SPEC, ("conv",)),
    "mapped convolutions": (plain_resnet, images, SPEC, ("conv",)),
    "clipped": (resnet, images, replace(SPEC, clip=0.5, accumulate=2), ("conv",)),
    "transformer with dropout": (transformer, sentences, ADAM, ("linear",)),
    "prenorm": (prenorm, sentences, ADAM, ("linear",)),
}


def pruned(build: Any, dtype: torch.dtype, kinds: tuple[str, ...], **how: Any) -> tuple[list, list]:
    models = [build(k, dtype) for k in range(len(RATIOS))]
    return models, [Pruner(m, Pruning(kinds=kinds, **how), ratio) for m, ratio in zip(models, RATIOS)]


def stacked(models: list, pruners: list, data: Rows, spec: Training, **options: Any) -> list[StackEpoch]:
    stack = Stack(models)
    both, holder = StackedData(data, stack), StackedPruner(stack, pruners)  # type: ignore[arg-type]
    run = Run(stack.module, both, spec, "finetune", 0, CPU, holder, width=stack.width)
    return train(run, **options)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_a_stack_trains_as_its_models_do_alone(case: str, dtype: torch.dtype) -> None:
    build, rows, spec, kinds = CASES[case]
    data = rows(dtype)
    alone, holders = pruned(build, dtype, kinds)
    losses = []
    for model, pruner in zip(alone, holders):
        losses.append([e.train_loss for e in train(Run(model, data, spec, "finetune", 0, CPU, pruner))])  # type: ignore[arg-type]
    models, pruners = pruned(build, dtype, kinds)
    records = stacked(models, pruners, data, spec)
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 2e-3, "atol": 2e-4}
    for k, (one, model) in enumerate(zip(alone, models)):
        assert [r.each[k] for r in records] == pytest.approx(losses[k], rel=1e-4)
        for (name, a), b in zip(one.state_dict().items(), model.state_dict().values()):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", **close)
            assert torch.equal(a.eq(0), b.eq(0)) or name not in holders[k].masks
        for name, mask in pruners[k].masks.items():
            assert torch.equal(mask, holders[k].masks[name])
            assert not model.get_parameter(name)[~mask].any()


def test_which_models_are_folded() -> None:
    assert can_fold(resnet(0, torch.float32)) and Stack([resnet(0, torch.float32)]).folded
    assert not can_fold(plain_resnet(0, torch.float32)) and not can_fold(transformer(0, torch.float32))
    with pytest.raises(ValueError, match="bf16"):
        Stack([plain_resnet(0, torch.float32)], bf16=True)


@pytest.mark.parametrize("build", [resnet, transformer])
def test_a_result_does_not_depend_on_the_others_in_a_stack_of_equal_width(build: Any) -> None:
    def last(seeds: list[int], of: int) -> dict[str, Tensor]:
        models = [build(seed, torch.float32) for seed in seeds]
        data, kinds = (images, ("conv",)) if build is resnet else (sentences, ("linear",))
        stacked(models, [Pruner(m, Pruning(kinds=kinds), 0.5) for m in models], data(torch.float32), SPEC)
        return models[seeds.index(of)].state_dict()

    first, elsewhere = last([7, 1, 2], 7), last([3, 4, 7], 7)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), elsewhere.values()))


@pytest.mark.parametrize("build", [resnet, plain_resnet, transformer])
def test_a_model_that_diverges_leaves_the_others_alone(build: Any) -> None:
    rows, kinds = (sentences, ("linear",)) if build is transformer else (images, ("conv",))

    def outcome(broken: bool) -> tuple[list, list]:
        models, pruners = pruned(build, torch.float32, kinds)
        if broken:
            with torch.no_grad():
                models[1].get_parameter(next(iter(pruners[1].masks))).fill_(float("nan"))
        records = stacked(models, pruners, rows(torch.float32), SPEC)
        return models, [r.each for r in records]

    (models, each), (intact, _) = outcome(True), outcome(False)
    assert all(math.isnan(losses[1]) and math.isfinite(losses[0] + losses[2]) for losses in each)
    for k in (0, 2):
        for a, b in zip(models[k].state_dict().values(), intact[k].state_dict().values()):
            assert torch.equal(a, b)


def test_a_stack_without_a_finite_loss_raises() -> None:
    models, pruners = pruned(resnet, torch.float32, ("conv",))
    with torch.no_grad():
        for model in models:
            model.stem.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="epoch 1"):
        stacked(models, pruners, images(torch.float32), SPEC)


@pytest.mark.parametrize("schedule", ["iterative", "gradual"])
def test_schedules_prune_each_model_along_the_way(schedule: str) -> None:
    data, spec = images(torch.float64), replace(SPEC, epochs=4)
    alone, holders = pruned(resnet, torch.float64, ("conv",), schedule=schedule)
    for model, pruner in zip(alone, holders):
        train(Run(model, data, spec, "finetune", 0, CPU, pruner))  # type: ignore[arg-type]
    models, pruners = pruned(resnet, torch.float64, ("conv",), schedule=schedule)
    stacked(models, pruners, data, spec)
    for one, other in zip(holders, pruners):
        assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)
        assert not any(other.model.get_parameter(name)[~mask].any() for name, mask in other.masks.items())


@pytest.mark.parametrize("schedule", ["one_shot", "gradual"])
def test_a_stack_resumes_exactly(schedule: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twore.training.loop.SAVE_EVERY", -1.0)
    data, spec = images(torch.float32), replace(SPEC, epochs=4)
    whole, pruners = pruned(resnet, torch.float32, ("conv",), schedule=schedule, ramp=1.0)
    records = stacked(whole, pruners, data, spec)

    def stop(record: Any) -> dict[str, Any]:
        if record.epoch == 3:
            raise KeyboardInterrupt
        return {}

    models, pruners = pruned(resnet, torch.float32, ("conv",), schedule=schedule, ramp=1.0)
    with pytest.raises(KeyboardInterrupt):
        stacked(models, pruners, data, spec, after_epoch=stop, state=tmp_path / "state")
    models, pruners = pruned(resnet, torch.float32, ("conv",), schedule=schedule, ramp=1.0)
    resumed = stacked(models, pruners, data, spec, state=tmp_path / "state")
    assert [r.each for r in resumed] == [r.each for r in records] and [r.epoch for r in resumed] == [1, 2, 3, 4]
    for a, b in zip(whole, models):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_models_are_views_of_the_stack() -> None:
    models = [ToyTask().build() for _ in range(2)]
    before = deepcopy(models[1].state_dict())
    stack = Stack(models)
    assert all(torch.equal(before[name], value) for name, value in models[1].state_dict().items())
    with torch.no_grad():
        for value in (*stack.module.parameters(), *stack.module.buffers()):
            value[1] += 1
    assert all(torch.equal(before[name] + 1, value) for name, value in models[1].state_dict().items())


def test_different_models_cannot_be_stacked() -> None:
    with pytest.raises(ValueError, match="one architecture"):
        Stack([ToyTask(hidden=4).build(), ToyTask(hidden=8).build()])
    with pytest.raises(ValueError, match="at least one"):
        Stack([])


def test_each_models_gradient_is_clipped_with_its_scalars() -> None:
    matrix, scalar = torch.zeros(2, 1, 2), torch.zeros(2)  # of two models
    matrix.grad, scalar.grad = torch.tensor([[[2.0, 3.0]], [[0.0, 0.0]]]), torch.tensor([6.0, 0.5])
    clip_each([matrix, scalar], 3.5)  # norms 7 and 0.5
    torch.testing.assert_close(matrix.grad, torch.tensor([[[1.0, 1.5]], [[0.0, 0.0]]]))
    torch.testing.assert_close(scalar.grad, torch.tensor([3.0, 0.5]))
