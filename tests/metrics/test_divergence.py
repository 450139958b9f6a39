"""Jensen-Shannon rows: values by hand, SciPy as oracle, and what is refused."""

import doctest
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from twore.metrics import divergence, js_distance, js_divergence


def test_values_by_hand():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    q = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    # second row: m = (3/4, 1/4); (log(4/3) + 1/2 log(2/3) + 1/2 log 2) / 2
    second = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    torch.testing.assert_close(js_divergence(p, q), torch.tensor([math.log(2), second, 0.0], dtype=torch.float64))
    torch.testing.assert_close(js_distance(p, q), js_divergence(p, q).sqrt())


def test_equals_scipy(probabilities):
    p, q = probabilities(50, 7, 1).numpy(), probabilities(50, 7, 2).numpy()
    p[0, :3], p[0, 3:] = 0.0, 0.25  # exact zeros on one side, and on both
    q[0] = [0, 0.5, 0, 0.5, 0, 0, 0]
    np.testing.assert_allclose(js_distance(p, q), jensenshannon(p, q, axis=1), rtol=1e-12)


def test_small_differences_keep_their_digits():
    eps = 1e-9  # JS of (1/2 + e, 1/2 - e) and its mirror image is 2 e^2 + O(e^4); the textbook sum gives noise here
    p = torch.tensor([[0.5 + eps, 0.5 - eps]], dtype=torch.float64)
    assert float(js_divergence(p, p.flip(1))) == pytest.approx(2 * eps**2, rel=1e-6)


def test_float32_is_right_for_sure_and_opposed_rows():
    p = torch.tensor([[1 - 1e-6, 1e-6], [1 - 3e-5, 3e-5], [0.75, 0.25], [0.7500001, 0.2499999]])
    exact = js_divergence(p.double(), p.double().flip(1))
    torch.testing.assert_close(js_divergence(p, p.flip(1)).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_range_symmetry_and_zero(probabilities, dtype):
    p, q = probabilities(200, 11, 3, dtype), probabilities(200, 11, 4, dtype)
    one_hot = torch.eye(11, dtype=dtype)
    p, q = torch.cat([p, one_hot]), torch.cat([q, one_hot.flip(0)])
    js = js_divergence(p, q)
    assert js.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(0 <= value <= math.log(2) for value in js.tolist())
    assert torch.equal(js, js_divergence(q, p))
    assert torch.equal(js_divergence(p, p), torch.zeros(len(p), dtype=js.dtype))
    assert js[-1] == pytest.approx(math.log(2), rel=1e-6)


def test_half_inputs_are_not_computed_in_half(probabilities):
    p, q = probabilities(20, 5, 5, torch.float16), probabilities(20, 5, 6, torch.float16)
    exact = js_divergence(p.double() / p.double().sum(1, keepdim=True), q.double() / q.double().sum(1, keepdim=True))
    torch.testing.assert_close(js_divergence(p, q).double(), exact, rtol=1e-5, atol=1e-7)


def test_torch_in_torch_out_numpy_in_numpy_out(probabilities):
    p, q = probabilities(3, 4), probabilities(3, 4, 1)
    assert isinstance(js_divergence(p.numpy(), q.numpy()), np.ndarray)
    assert isinstance(js_divergence(p, q.numpy()), torch.Tensor)
    frozen = p.numpy().copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(js_divergence(frozen, q.numpy()), js_divergence(p, q).numpy())
    assert js_divergence(np.eye(3, dtype=int), np.eye(3, dtype=int)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.index_fill_(0, torch.tensor([1]), math.nan), "row 1 of q holds NaN"),
        (lambda x: x.index_fill_(0, torch.tensor([2]), math.inf), "row 2 of q holds NaN or inf"),
        (lambda x: x.copy_(torch.tensor([1.5, -0.5, 0.0])), "negative"),
        (lambda x: x.mul_(1.01), "sums to 1.01"),
        (lambda x: x.log_(), "negative"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities, spoil, message):
    p, q = probabilities(4, 3), probabilities(4, 3, 1)
    spoil(q)
    with pytest.raises(ValueError, match=message):
        js_divergence(p, q)


SHAPES = [((4, 3), (4, 2)), ((4, 3), (3, 3)), ((3,), (3,)), ((2, 2, 2), (2, 2, 2)), ((2, 0), (2, 0))]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_shapes_are_checked(a, b):
    with pytest.raises(ValueError, match=r"\(N, C\)"):
        js_divergence(torch.full(a, 1 / max(1, a[-1])), torch.full(b, 1 / max(1, b[-1])))


def test_no_rows_give_no_values_and_lists_are_refused():
    assert js_divergence(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    with pytest.raises(TypeError, match="list"):
        js_divergence([[1.0]], [[1.0]])


def test_examples_run():
    assert doctest.testmod(divergence).failed == 0
