"""BatchNorm recalibration: plain averages, nothing else touched, everything put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twore.pruning import recalibrate_batchnorm


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2), nn.BatchNorm1d(2, momentum=0.3)
    )
    for _ in range(3):
        net(torch.randn(16, 3) * 5)  # old statistics
    return net


def test_statistics_are_the_plain_average_over_batches() -> None:
    net, batches = make_net(), [torch.randn(8, 3), torch.randn(5, 3) + 2]
    assert recalibrate_batchnorm(net, batches) == 2
    outputs = [net[0](batch) for batch in batches]
    torch.testing.assert_close(net[1].running_mean, sum(o.mean(0) for o in outputs) / 2)
    torch.testing.assert_close(net[1].running_var, sum(o.var(0) for o in outputs) / 2)
    assert int(net[1].num_batches_tracked) == 2


def test_dropout_stays_off_and_all_else_is_put_back() -> None:
    net, batch = make_net(), torch.randn(8, 3)
    net[3].eval()
    flags = [module.training for module in net.modules()]
    weights = [parameter.detach().clone() for parameter in net.parameters()]
    state = torch.random.get_rng_state()
    recalibrate_batchnorm(net, iter([batch]))
    first = net[4].running_mean.clone()
    assert torch.equal(state, torch.random.get_rng_state())  # no dropout was drawn
    assert [module.training for module in net.modules()] == flags
    assert (net[1].momentum, net[4].momentum) == (0.1, 0.3)
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(net.parameters(), weights, strict=True))
    recalibrate_batchnorm(net, [batch])
    assert torch.equal(first, net[4].running_mean)  # the same batches give the same statistics, whatever was before


def test_batches_of_a_loader_and_keywords() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
            return self.norm(x * scale)

    x, net = torch.randn(9, 3), Named()
    recalibrate_batchnorm(net, [(x, torch.zeros(9))])
    torch.testing.assert_close(net.norm.running_mean, x.mean(0))
    recalibrate_batchnorm(net, [{"x": x, "scale": 2.0}])
    torch.testing.assert_close(net.norm.running_mean, 2 * x.mean(0))


def test_a_model_without_batchnorm_is_left_alone() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))

    def never():
        raise AssertionError("no batch is needed")
        yield

    assert recalibrate_batchnorm(net, never()) == 0


def test_an_error_leaves_the_old_statistics() -> None:
    for batches, error in (([], ValueError), ([torch.randn(4, 3), torch.randn(4, 9)], RuntimeError)):
        net = make_net().eval()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        with pytest.raises(error):
            recalibrate_batchnorm(net, batches)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert not any(module.training for module in net.modules()) and net[4].momentum == 0.3
