"""Masks of a stack: held for all models at once, let go at the end, one pruner a model."""

from __future__ import annotations

import pytest
import torch
from toy import ToyTask

from twore.pruning.spec import Pruning
from twore.training import Pruner, Stack, StackedPruner


def test_masks_hold_until_they_are_let_go() -> None:
    models = [ToyTask().build() for _ in range(2)]
    pruners = [Pruner(model, Pruning(), ratio) for model, ratio in zip(models, (0.3, 0.8))]
    stack = Stack(models)
    holder, optimizer = StackedPruner(stack, pruners), torch.optim.SGD(stack.module.parameters(), lr=0.1)
    gone = [(stack.module.get_parameter(n)[k], ~mask) for k in (0, 1) for n, mask in pruners[k].masks.items()]
    assert [int(pruned.sum()) for _, pruned in gone] == [24, 7, 64, 19]  # 0.3 and 0.8 of 80 and 24 weights
    for held in (True, False):
        if held:
            holder.install(optimizer)
        else:
            holder.remove()
        for parameter in stack.module.parameters():
            parameter.grad = torch.ones_like(parameter)
        holder.zero_gradients()
        assert [bool(p.grad.eq(0).any()) for p in stack.module.parameters() if p.ndim == 3 and p.grad is not None] == [
            held
        ] * 2
        optimizer.step()
        assert all(bool(weight[pruned].any()) != held for weight, pruned in gone)


def test_each_pruner_takes_its_own_state_back() -> None:
    """Masks as they were, though the weights that they came from are others."""
    pruners, holders = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models = [ToyTask().build() for _ in range(2)]
        pruners.append([Pruner(model, Pruning(), ratio) for model, ratio in zip(models, (0.3, 0.8))])
        holders.append(StackedPruner(Stack(models), pruners[-1]))
    assert any(not torch.equal(a.masks[n], b.masks[n]) for a, b in zip(*pruners) for n in a.masks)
    holders[1].load_state_dict(holders[0].state_dict())
    for one, other in zip(*pruners):
        assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)


def test_a_pruner_a_model() -> None:
    models = [ToyTask().build() for _ in range(2)]
    pruner = Pruner(models[0], Pruning(), 0.3)
    with pytest.raises(ValueError, match="2 models needs as many pruners: got 1"):
        StackedPruner(Stack(models), [pruner])
