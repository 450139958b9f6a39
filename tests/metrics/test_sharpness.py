"""Sharpness against its closed form for quadratic losses, its invariances, and that weights are put back."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from twore.metrics import hessian_top, hessian_trace, sharpness
from twore.pruning import apply_masks, make_masks, prunable_weights


class Bowl(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(weights, dtype=torch.float64))


def test_a_quadratic_has_its_closed_form():
    weights, curvature = torch.linspace(-2, 2, 50, dtype=torch.float64), torch.linspace(1, 3, 50, dtype=torch.float64)

    def bowl(model, batch):
        return (0.5 * curvature * model.w**2 + 5 * model.w).sum() * 4, 4  # the slope 5 cancels within a pair

    result = sharpness(Bowl(weights.tolist()), bowl, [None, None], radius=0.1, samples=300)
    wanted = 0.1**2 / 2 * float((curvature * weights**2).sum())
    assert result.value == pytest.approx(wanted, abs=4 * result.stderr)
    # one pair is 0.005 sum c w^2 z^2: its variance is 2 * sum (0.005 c w^2)^2, exactly free of the slope
    spread = math.sqrt(2 * float(((0.005 * curvature * weights**2) ** 2).sum()) / 300)
    assert result.stderr == pytest.approx(spread, rel=0.2)
    assert result.base == pytest.approx(float((0.5 * curvature * weights**2).sum()), rel=1e-12)
    assert float(result) == result.value and result.samples == 300


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3))
    net(torch.randn(32, 4))
    return net.double()


def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="sum"), len(y)


X, Y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(30) % 3


def test_rescaling_layers_that_undo_each_other_changes_nothing():
    net = make_net()
    before = sharpness(net, loss, [(X, Y)])
    with torch.no_grad():
        for p in (net[0].weight, net[0].bias):
            p.mul_(8.0)  # BatchNorm in eval mode divides by its own statistics, scaled alike
        net[1].running_mean.mul_(8.0)
        net[1].running_var.mul_(64.0)
        net[1].eps *= 64.0
    assert sharpness(net, loss, [(X, Y)]).value == pytest.approx(before.value, rel=1e-9)


def test_pruned_weights_stay_zero_while_measured():
    net = make_net()
    masks = make_masks(prunable_weights(net), 0.7)
    apply_masks(net, masks)
    seen = []

    def watched(model, batch):
        seen.append(all(bool((model.get_parameter(n)[~m] == 0).all()) for n, m in masks.items()))
        return loss(model, batch)

    sharpness(net, watched, [(X, Y)], samples=2)
    assert seen == [True] * 5  # 1 base and 2 pairs


def test_everything_is_put_back_also_after_an_error():
    net = make_net().train()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    first = sharpness(net, loss, [(X, Y)])
    assert first == sharpness(net, loss, iter([(X, Y)]))
    assert sharpness(net, loss, [(X, Y)], seed=1) != first
    calls = []

    def breaks(model, batch):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no more")
        return loss(model, batch)

    with pytest.raises(RuntimeError, match="no more"):
        sharpness(net, breaks, [(X, Y)])
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    assert all(m.training for m in net.modules())


def test_only_chosen_parameters_move():
    net = make_net()
    seen = []

    def watched(model, batch):
        seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        return loss(model, batch)

    assert sharpness(net, watched, [(X, Y)], parameters={"4.bias": net[4].bias}, samples=1).value > 0  # convex in it
    for name in seen[0]:
        assert torch.equal(seen[0][name], seen[1][name]) == (name != "4.bias")
    middle = (seen[1]["4.bias"] + seen[2]["4.bias"]) / 2  # a pair is opposite
    torch.testing.assert_close(middle, net[4].bias.detach())


def test_what_is_refused():
    net = make_net()
    for radius in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="radius"):
            sharpness(net, loss, [(X, Y)], radius=radius)
    with pytest.raises(ValueError, match="samples"):
        sharpness(net, loss, [(X, Y)], samples=0)
    with pytest.raises(ValueError, match="batches is empty"):
        sharpness(net, loss, [])
    with pytest.raises(ValueError, match="NaN"):
        sharpness(net, loss, [(X * math.nan, Y)])


def test_a_loss_that_counts_nothing_is_refused():
    for metric in (sharpness, hessian_top, hessian_trace):
        with pytest.raises(ValueError, match="counts 0 examples"):
            metric(Bowl([1.0, 2.0]), lambda model, batch: ((model.w**2).sum(), 0), [None])
