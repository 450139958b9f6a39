"""Hessian eigenvalues and trace against dense Hessians, and that nothing is left behind."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from twore.metrics import hessian_eigenvalues, hessian_top, hessian_trace
from twore.metrics.hessian import DENSE_UP_TO
from twore.pruning import prunable_weights


def make_net(width=12, dtype=torch.float64):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.5), nn.Linear(width, 3))
    net(torch.randn(32, 3))  # statistics
    return net.to(dtype)


def make_batches(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64).to(dtype)
    return [(x[:20], torch.arange(20) % 3), (x[20:], torch.arange(10) % 3)]


def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="sum"), len(y)


def dense_hessian(model, batches, parameters):
    """The whole matrix by torch's own transform, an independent way."""
    model = model.eval()
    flat = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
    sizes = [p.numel() for p in parameters.values()]

    def mean_loss(vector):
        parts = {n: v.view(p.shape) for (n, p), v in zip(parameters.items(), vector.split(sizes), strict=True)}
        sums = [F.cross_entropy(torch.func.functional_call(model, parts, (x,)), y, reduction="sum") for x, y in batches]
        return sum(sums) / sum(len(y) for _, y in batches)

    return torch.autograd.functional.hessian(mean_loss, flat).numpy()


@pytest.mark.parametrize("width", [4, 12])  # 4: built whole; 12: Lanczos
def test_eigenvalues_and_trace_equal_the_dense_hessians(width):
    net, batches = make_net(width), make_batches()
    parameters = dict(net.named_parameters())
    n = sum(p.numel() for p in parameters.values())
    assert (n <= DENSE_UP_TO) == (width == 4)
    reference = dense_hessian(make_net(width), batches, parameters)
    wanted = np.linalg.eigvalsh(reference)[::-1]
    np.testing.assert_allclose(hessian_eigenvalues(net, loss, batches, k=3, tolerance=1e-10), wanted[:3], rtol=1e-8)
    assert hessian_top(net, loss, batches) == pytest.approx(wanted[0], rel=1e-3)
    estimate = hessian_trace(net, loss, batches, samples=400)
    assert estimate.value == pytest.approx(np.trace(reference), abs=4 * estimate.stderr)
    assert 0 < estimate.stderr < 0.1 * abs(estimate.value)
    # Hutchinson with signs: the variance of one sample is 2 sum of the squared off-diagonal entries
    spread = math.sqrt(2 * ((reference - np.diag(np.diag(reference))) ** 2).sum() / 400)
    assert estimate.stderr == pytest.approx(spread, rel=0.2)


def test_chosen_parameters_are_a_block_of_the_matrix():
    net, batches = make_net(), make_batches()
    chosen = prunable_weights(net)
    wanted = np.linalg.eigvalsh(dense_hessian(make_net(), batches, chosen))[-1]
    assert hessian_top(net, loss, batches, parameters=chosen) == pytest.approx(wanted, rel=1e-3)
    assert hessian_top(net, loss, batches) > wanted  # a block's top is at most the whole's


def test_a_quadratic_by_hand():
    class Bowl(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(100, dtype=torch.float64))

    scale = torch.arange(-50.0, 50.0, dtype=torch.float64)

    def bowl(model, weight):
        return 0.5 * weight * (scale * model.w**2).sum(), 2  # a sum over 2 examples

    # Hessian: diag(scale) * (1 + 3) / (2 + 2)
    assert hessian_eigenvalues(Bowl(), bowl, [1.0, 3.0], k=2) == pytest.approx([49.0, 48.0], rel=1e-4)
    trace = hessian_trace(Bowl(), bowl, [1.0, 3.0], samples=2)
    assert float(trace) == pytest.approx(-50.0, rel=1e-12)  # diagonal: every sample is exact
    assert trace.stderr == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(hessian_trace(Bowl(), bowl, [1.0], samples=1).stderr)


@pytest.mark.parametrize("n", [5, 100])
def test_a_loss_without_curvature_has_zero_eigenvalues(n):
    net = nn.Linear(n, 1)

    def linear(model, x):
        return model(x).sum(), len(x)

    batches = [torch.randn(4, n)]
    assert hessian_eigenvalues(net, linear, batches, k=2).tolist() == [0.0, 0.0]
    assert hessian_trace(net, linear, batches, samples=3).value == 0.0


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    net, batches = make_net().train(), make_batches()
    net[3].eval()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    flags, state = [m.training for m in net.modules()], torch.random.get_rng_state()
    with torch.no_grad():
        first = (hessian_top(net, loss, batches), hessian_trace(net, loss, batches, samples=3))
    with torch.inference_mode():
        assert first == (hessian_top(net, loss, batches), hessian_trace(net, loss, batches, samples=3))
    assert hessian_trace(net, loss, batches, samples=3, seed=1) != first[1]
    assert torch.equal(state, torch.random.get_rng_state())
    assert flags == [m.training for m in net.modules()]
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_float32_and_attention():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def squares(model, x):
        return model(x).square().mul(torch.arange(8.0).to(x)).sum(), len(x)

    batches = [torch.randn(3, 5, 8)]
    single = hessian_top(net, squares, batches)
    double = hessian_top(net.double(), squares, [b.double() for b in batches])
    assert single == pytest.approx(double, rel=1e-3)


def test_what_is_refused():
    net, batches = make_net(), make_batches()
    with pytest.raises(ValueError, match="batches is empty"):
        hessian_top(net, loss, [])
    with pytest.raises(ValueError, match="from 1 to the 111"):
        hessian_eigenvalues(net, loss, batches, k=112)
    with pytest.raises(ValueError, match="at least 1"):
        hessian_trace(net, loss, batches, samples=0)
    with pytest.raises(ValueError, match="half precision"):
        hessian_top(make_net(dtype=torch.bfloat16), loss, batches)
    with pytest.raises(ValueError, match="not a parameter of this model"):
        hessian_top(net, loss, batches, parameters=prunable_weights(make_net()))
    with pytest.raises(ValueError, match="requires_grad_"):
        hessian_top(net.requires_grad_(False), loss, batches, parameters=prunable_weights(net))
    with pytest.raises(ValueError, match="none that requires a gradient"):
        hessian_top(net, loss, batches)
    with pytest.raises(ValueError, match="does not depend on the parameters"):
        hessian_top(make_net(), lambda m, b: (torch.ones(()), 1), batches)
    with pytest.raises(ValueError, match="NaN or inf"):
        hessian_top(make_net(), loss, [(batches[0][0] * math.nan, batches[0][1])])
