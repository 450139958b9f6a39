"""Debiased linear CKA against the O(N^2) formula, a value by hand, invariances, and degenerate features."""

import doctest
import math

import numpy as np
import pytest
import torch

from twore.metrics import CkaAccumulator, centred_logits, cka, projected
from twore.metrics import cka as cka_function


def hsic_1(k, m):
    """Song et al. 2012, eq. 5, word for word, on N x N kernels."""
    n, k, m = len(k), k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
    return total / (n * (n - 3))


def reference(x, y):
    k, m = x @ x.T, y @ y.T
    return hsic_1(k, m) / math.sqrt(hsic_1(k, k) * hsic_1(m, m))


def features(n, f, seed, dtype=torch.float64):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def batches(x, sizes):
    yield from torch.split(x, sizes)


@pytest.mark.parametrize(("n", "f", "g"), [(4, 3, 2), (5, 1, 1), (30, 7, 12), (12, 50, 3)])
def test_equals_the_quadratic_formula(n, f, g):
    x = features(n, f, 1)
    y = x[:, :1] * features(1, g, 2) + 0.5 * features(n, g, 3) + 4
    assert cka(x, y) == pytest.approx(reference(x.numpy(), y.numpy()), rel=1e-9, abs=1e-12)


def test_a_value_by_hand():
    # x = 1 1 0 0, y = 1 0 1 0. Without diagonals K has one pair of ones (1, 2), L one (1, 3); N = 4.
    # tr(K~ L~) = 0; 1'K~1 = 1'L~1 = 2, so 4 / (3 * 2) = 2/3; K~1 = (1,1,0,0), L~1 = (1,0,1,0), so -2/2 * 1 = -1:
    # HSIC(K, L) ~ -1/3. With itself: tr = 2, 2/3, K~1 . K~1 = 2 so -2: 2/3. CKA = (-1/3) / (2/3) = -1/2
    x = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    y = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    assert cka(x, y) == pytest.approx(-0.5, rel=1e-12)
    assert cka(x, x) == pytest.approx(1.0, rel=1e-12)
    assert cka(x, 1 - x) == pytest.approx(1.0, rel=1e-12)


def test_independent_features_are_near_zero_where_the_biased_value_is_not():
    x, y = features(100, 80, 1), features(100, 80, 2)
    centred = [(z - z.mean(0)).numpy() for z in (x, y)]
    biased = np.linalg.norm(centred[0].T @ centred[1]) ** 2 / math.prod(np.linalg.norm(z.T @ z) for z in centred)
    assert biased > 0.3
    assert abs(cka(x, y)) < 0.02


def test_invariances():
    x = features(40, 6, 1)
    y = 0.7 * x + features(40, 6, 2)
    rotation = torch.linalg.qr(features(6, 6, 3))[0]
    before = cka(x, y)
    assert 0.1 < before < 0.99
    for other in (x @ rotation, -3.5 * x, x + 100, 1e-8 * x, torch.cat([x, torch.zeros(40, 2)], 1)):
        assert cka(other, y) == pytest.approx(before, rel=1e-9)
    stretched = x * torch.tensor([10.0, 1, 1, 1, 1, 1])
    assert abs(cka(stretched, y) - before) > 1e-3  # not invariant to every linear map


def test_streaming_and_order():
    x, y = features(20, 5, 1), features(20, 3, 2) + features(20, 5, 1)[:, :3]
    whole, order = cka(x, y), torch.randperm(20)
    for left, right in [([20], [7, 7, 6]), ([1] * 20, [19, 1]), ([0, 10, 10], [4, 16])]:
        assert cka(batches(x, left), batches(y, right)) == pytest.approx(whole, rel=1e-12)
    assert cka(x[order], y[order]) == pytest.approx(whole, rel=1e-10)
    assert cka(x.numpy(), [y[:3].numpy(), y[3:]]) == pytest.approx(whole, rel=1e-12)


def test_degenerate_features_give_zero():
    x, constant = features(30, 4, 1), torch.full((30, 3), 0.1)
    noisy = constant * (1 + 1e-7 * features(30, 3, 2, torch.float32))  # float32 rounding of a dead network
    one_differs = torch.zeros(30, 2)
    one_differs[7] = 5.0
    for dead in (constant, noisy, one_differs, torch.zeros(30, 2), constant.half()):
        for other in (x, dead, constant):
            assert cka(dead, other) == 0.0
            assert cka(other, dead) == 0.0
    small_but_there = 1.0 + 1e-4 * x[:, :3].float()
    assert cka(small_but_there, x) > 0.5


def test_what_is_refused():
    x = features(10, 3, 1)
    with pytest.raises(ValueError, match="at least 4 samples: got 3"):
        cka(x[:3], x[:3])
    with pytest.raises(ValueError, match="at least 4 samples: got 0"):
        cka(iter(()), iter(()))
    with pytest.raises(ValueError, match="y ended after 6 rows"):
        cka([x], [x[:6]])
    with pytest.raises(ValueError, match="NaN"):
        cka(x, x * math.inf)
    with pytest.raises(ValueError, match="row a sample"):
        cka(x[None], x[None])
    with pytest.raises(ValueError, match="pass projected"):
        cka(torch.zeros(4, 5000), x[:4])
    with pytest.raises(ValueError, match="had 3 features, now 2"):
        cka([x[:5], x[5:, :2]], x)
    with pytest.raises(ValueError, match="same iterator"):
        both = batches(x, 2)
        cka(both, both)
    with pytest.raises(TypeError, match="list"):
        cka([x.tolist()], [x])
    total = CkaAccumulator()
    total.add(x, x)
    with pytest.raises(ValueError, match="NaN"):
        total.add(x, x * math.nan)
    assert (total.rows, total.result()) == (10, pytest.approx(1.0))


def test_centred_logits_undo_a_softmax():
    logits = features(12, 5, 1)
    torch.testing.assert_close(centred_logits(logits.softmax(1)), logits - logits.mean(1, keepdim=True))
    assert bool(centred_logits(torch.eye(3)).isfinite().all())


def test_projection_keeps_cka_nearly_and_is_fixed_by_its_seed():
    x = features(200, 600, 1, torch.float32) @ torch.diag(torch.linspace(2, 0, 600)) + 3 * features(200, 1, 5).float()
    y = x + 2 * features(200, 600, 2, torch.float32)
    a, b = projected(x, 300), projected(y, 300)
    assert a.shape == (200, 300)
    assert cka(a, b) == pytest.approx(cka(x, y), abs=0.05)
    assert torch.equal(a, projected(x, 300)) and not torch.equal(a, projected(x, 300, seed=1))
    with pytest.raises(ValueError, match="at least 1"):
        projected(x, 0)


def test_examples_run():
    module = __import__(cka_function.__module__, fromlist=["cka"])
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("size", [1e-200, 1e-90, 1e90, 1e200])
@pytest.mark.parametrize("step", [1, 7, 40])
def test_features_of_any_size_have_their_value(size, step):
    x, y = features(40, 5, 0), features(40, 3, 1)
    y = y + x[:, :3]
    assert cka((size * x).split(step), y) == pytest.approx(cka(x, y), rel=1e-12)
