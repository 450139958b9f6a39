"""One test over all registered metrics: fields, range, direction of the inputs, invariances, degenerate input.

A metric with new inputs (`takes`) needs a line in INPUTS; a public metric function that was not registered fails.
"""

import inspect
import math

import numpy as np
import pytest
import torch

import twore.metrics as metrics
from twore.metrics import METRICS, register
from twore.metrics.registry import DIRECTIONS

# public functions of twore.metrics that are not metrics: several at once, parts, or bookkeeping
NOT_METRICS = {"register", "pair_metrics", "spectral_distances", "spectral_weights", "eigenvalues"}


def pair_inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple((4 * torch.randn(40, 6, generator=generator, dtype=torch.float64)).softmax(1) for _ in range(2))


def weight_inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (6, 4, 3, 3), "fc.weight": (12, 10), "head.weight": (10, 30), "bias": (10,)}
    return ({n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()},)


INPUTS = {"probability pairs": pair_inputs, "weights": weight_inputs}
ALL = sorted(METRICS)
PAIRS = [name for name in ALL if METRICS[name].takes == "probability pairs"]
WEIGHTS = [name for name in ALL if METRICS[name].takes == "weights"]


def values(name, *inputs):
    """What a metric returns, as a float64 array of one axis."""
    out = METRICS[name].fn(*inputs)
    return out.double().numpy() if isinstance(out, torch.Tensor) else np.atleast_1d(np.float64(float(out)))


def cast(inputs, dtype):
    return tuple({n: w.to(dtype) for n, w in x.items()} if isinstance(x, dict) else x.to(dtype) for x in inputs)


def test_every_public_metric_function_is_registered():
    functions = {n for n in metrics.__all__ if inspect.isfunction(getattr(metrics, n))}
    assert functions - NOT_METRICS == {n for n in functions if n in METRICS and METRICS[n].fn is getattr(metrics, n)}
    assert functions >= NOT_METRICS  # the list of exceptions is not stale
    assert {"js_divergence", "js_distance", "random_distance", "model_similarity"} <= set(METRICS)


@pytest.mark.parametrize("name", ALL)
def test_fields_are_filled(name):
    metric = METRICS[name]
    assert metric.takes in INPUTS, f"add a builder of inputs for {metric.takes!r} to INPUTS"
    assert metric.better in DIRECTIONS
    assert metric.low < metric.high
    assert all(text.strip() for text in (metric.unit, metric.source, metric.cost))
    assert len(inspect.getdoc(metric.fn) or "") > 40
    for parameter in list(inspect.signature(metric.fn).parameters.values())[len(INPUTS[metric.takes](0)) :]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY  # data first, options by name
        assert parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_range_and_determinism(name, seed):
    inputs = INPUTS[METRICS[name].takes](seed)
    first = values(name, *inputs)
    assert np.isfinite(first).all() and first.size
    assert (first >= METRICS[name].low).all() and (first <= METRICS[name].high).all()
    np.testing.assert_array_equal(first, values(name, *inputs))
    others = [values(name, *INPUTS[METRICS[name].takes](other)) for other in range(10, 15)]
    assert any(not np.array_equal(first, other) for other in others)  # it depends on its input


@pytest.mark.parametrize("name", ALL)
def test_float32_gives_nearly_the_float64_value(name):
    inputs = INPUTS[METRICS[name].takes](0)
    np.testing.assert_allclose(values(name, *cast(inputs, torch.float32)), values(name, *inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_nan_is_refused(name):
    inputs = INPUTS[METRICS[name].takes](0)
    spoilt = inputs[0] if torch.is_tensor(inputs[0]) else next(iter(inputs[0].values()))
    spoilt.view(-1)[3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        METRICS[name].fn(*inputs)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_symmetric(name):
    p, q = pair_inputs(1)
    np.testing.assert_array_equal(values(name, p, q), values(name, q, p))


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_do_not_depend_on_sample_order(name):
    p, q = pair_inputs(1)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(0))
    before, after = values(name, p, q), values(name, p[order], q[order])
    np.testing.assert_allclose(after, before[order.numpy()] if before.size > 1 else before, rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("size", [1, 7, 39])
def test_pairs_do_not_depend_on_the_batch_split(name, size):
    p, q = pair_inputs(1)
    whole = values(name, p, q)
    if whole.size > 1:  # a value a row: the rows of the parts
        parts = np.concatenate([values(name, a, b) for a, b in zip(p.split(size), q.split(size), strict=True)])
    else:
        parts = values(name, iter(p.split(size)), iter(q.split(size)))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_equal_and_opposite_pairs_are_the_two_ends_of_the_range(name):
    metric, one_hot = METRICS[name], torch.eye(5, dtype=torch.float64)
    same, opposite = values(name, one_hot, one_hot), values(name, one_hot, one_hot.roll(1, dims=0))
    ends = {metric.low, metric.high}
    assert set(same) == {min(ends, key=lambda end: abs(end - same[0]))}
    np.testing.assert_allclose(opposite, (ends - set(same)).pop(), rtol=1e-12)
    if metric.better != "none":  # more alike is better, whichever end that is
        assert same[0] == getattr(metric, metric.better)
    single = torch.ones(3, 1)  # one class: nothing to disagree about
    assert values(name, single, single)[0] == same[0]


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_do_not_depend_on_layer_order_or_on_what_is_not_measured(name):
    (weights,) = weight_inputs(1)
    turned = {**dict(reversed(weights.items())), "another.bias": torch.ones(3)}
    np.testing.assert_allclose(values(name, turned), values(name, weights), rtol=1e-12)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_all_zero_give_no_number(name):
    (weights,) = weight_inputs(1)
    assert np.isnan(values(name, {n: w * 0 for n, w in weights.items()})).all()


GOOD = {"takes": "weights", "unit": "nats", "low": 0.0, "high": 1.0, "better": "high", "source": "s", "cost": "c"}


@pytest.fixture
def registry():
    before = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(before)


def test_register_enters_the_function_unchanged(registry):
    def fn(weights):
        return 0.5

    assert register("a_new_one", **GOOD)(fn) is fn
    assert registry["a_new_one"].fn is fn
    assert (registry["a_new_one"].unit, registry["a_new_one"].high) == ("nats", 1.0)
    with pytest.raises(AttributeError):
        registry["a_new_one"].unit = "bits"


def test_register_refuses_duplicates_and_gaps(registry):
    before = METRICS["js_divergence"]
    with pytest.raises(ValueError, match="registered already"):
        register("js_divergence", **GOOD)(len)
    assert METRICS["js_divergence"] is before
    for wrong, message in [
        ({"better": "up"}, "better is one of"),
        ({"low": 1.0}, "range"),
        ({"high": math.nan}, "range"),
        ({"unit": " "}, "non-empty unit"),
        ({"source": ""}, "non-empty source"),
    ]:
        with pytest.raises(ValueError, match=message):
            register("wrong", **GOOD | wrong)
    assert "wrong" not in METRICS
