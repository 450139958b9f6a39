"""One test over all registered metrics: fields, range, symmetry, invariances, precision, degenerate input.

What a metric takes decides its case. A metric with new inputs needs a case in registry_cases.py; one that was
registered without a case, and a public metric function that was not registered, fail. What is special to a metric
stands in its own test.
"""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from registry_cases import CASES, SAME, numbers
from torch import nn

import twore.metrics as metrics
from twore.metrics import METRICS, TAKES, metrics_taking, register, unregister
from twore.metrics.registry import DIRECTIONS

# public functions of twore.metrics that are not metrics: several at once, parts, or bookkeeping
NOT_METRICS = {
    *("register", "unregister", "metrics_taking"),
    *("pair_metrics", "spectral_distances", "spectral_metrics", "mode_connectivity", "hessian_eigenvalues"),
    *("spectral_weights", "eigenvalues", "centred_logits", "projected", "rate_phase"),
}

ALL = sorted(METRICS)


def case(name):
    return CASES[METRICS[name].takes]


def having(attribute):
    return [name for name in ALL if METRICS[name].takes in CASES and getattr(case(name), attribute)]


def values(name, *inputs):
    """What a metric returns, as a float64 array of one axis."""
    out = METRICS[name].fn(*inputs)
    return out.double().numpy() if isinstance(out, torch.Tensor) else np.atleast_1d(np.float64(float(out)))


def cast(x, dtype):
    if isinstance(x, dict):
        return {name: w.to(dtype) for name, w in x.items()}
    if isinstance(x, nn.Module):
        return copy.deepcopy(x).to(dtype)
    return x.to(dtype) if isinstance(x, torch.Tensor) else x


def test_every_public_metric_function_is_registered():
    functions = {n for n in metrics.__all__ if inspect.isfunction(getattr(metrics, n))}
    assert functions - NOT_METRICS == {n for n in functions if n in METRICS and METRICS[n].fn is getattr(metrics, n)}
    assert functions >= NOT_METRICS  # the list of exceptions is not stale
    assert {"js_divergence", "js_distance", "random_distance", "model_similarity"} <= set(METRICS)


def test_every_registered_metric_has_a_case():
    assert {metric.takes for metric in METRICS.values()} <= set(CASES)
    assert set(TAKES) == set(CASES)  # what the registry documents is what is tested
    for takes in CASES:
        assert metrics_taking(takes), f"no metric takes {takes!r}: remove the case"


@pytest.mark.parametrize("name", ALL)
def test_fields_are_filled(name):
    metric = METRICS[name]
    assert metric.better in DIRECTIONS
    assert metric.low < metric.high
    assert all(text.strip() for text in (metric.unit, metric.source, metric.cost))
    assert len(inspect.getdoc(metric.fn) or "") > 40
    for parameter in list(inspect.signature(metric.fn).parameters.values())[len(case(name).build(0)) :]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY  # data first, options by name
        assert parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", ALL)
def test_range_and_determinism(name):
    metric, build, seen = METRICS[name], case(name).build, []
    for seed in range(3):
        seen.append(values(name, *build(seed)))
        assert np.isfinite(seen[-1]).all() and seen[-1].size
        assert (seen[-1] >= metric.low).all() and (seen[-1] <= metric.high).all()
    torch.manual_seed(123)  # what else draws random numbers does not matter
    np.testing.assert_array_equal(seen[-1], values(name, *build(2)))
    assert any(not np.array_equal(seen[0], other) for other in seen[1:])  # it depends on its input


@pytest.mark.parametrize("name", ALL)
def test_float32_gives_nearly_the_float64_value(name):
    inputs = case(name).build(0)
    single = values(name, *(cast(x, torch.float32) for x in inputs))
    np.testing.assert_allclose(single, values(name, *inputs), rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_not_changed(name):
    inputs = case(name).build(0)
    before = copy.deepcopy(inputs)
    state = torch.random.get_rng_state()
    METRICS[name].fn(*inputs)
    assert torch.equal(state, torch.random.get_rng_state())
    for old, new in zip(before, inputs, strict=True):
        if isinstance(old, nn.Module):
            old, new = ({**m.state_dict(), "mode": torch.tensor(m.training)} for m in (old, new))
        if isinstance(old, dict):
            assert all(torch.equal(old[key], new[key]) for key in old)
        elif isinstance(old, torch.Tensor):
            assert torch.equal(old, new)


@pytest.mark.parametrize("name", ALL)
def test_nan_is_refused(name):
    inputs = case(name).build(0)
    first = inputs[0]
    spoilt = (
        first
        if torch.is_tensor(first)
        else next(iter((first if isinstance(first, dict) else first.state_dict()).values()))
    )
    spoilt.view(-1)[3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        METRICS[name].fn(*inputs)


@pytest.mark.parametrize("name", having("symmetric"))
def test_symmetric(name):
    a, b, *rest = case(name).build(1)
    np.testing.assert_allclose(values(name, a, b, *rest), values(name, b, a, *rest), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", having("reordered"))
def test_order_does_not_matter(name):
    inputs, order = case(name).build(1), torch.randperm(40, generator=numbers(0))
    before, after = values(name, *inputs), values(name, *case(name).reordered(inputs, order))
    np.testing.assert_allclose(after, before[order.numpy()] if before.size > 1 else before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", having("split"))
@pytest.mark.parametrize("size", [1, 7, 29])
def test_the_batch_split_does_not_matter(name, size):
    whole = values(name, *case(name).build(1))
    if whole.size > 1:  # a value a row: the rows of the parts
        p, q = case(name).build(1)
        parts = np.concatenate([values(name, a, b) for a, b in zip(p.split(size), q.split(size), strict=True)])
    else:
        parts = values(name, *case(name).split(case(name).build(1), size))
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_input_without_content_has_a_defined_value(name):
    metric = METRICS[name]
    assert case(name).degenerate
    for inputs, wanted in case(name).degenerate:
        found = values(name, *inputs)
        if wanted is SAME:
            wanted = getattr(metric, metric.better) if metric.better != "none" else metric.low
        np.testing.assert_array_equal(found, np.full_like(found, wanted))


@pytest.mark.parametrize("name", sorted(metrics_taking("probability pairs")))
def test_equal_and_opposite_probabilities_are_the_two_ends_of_the_range(name):
    metric, one_hot = METRICS[name], torch.eye(5, dtype=torch.float64)
    same, opposite = values(name, one_hot, one_hot), values(name, one_hot, one_hot.roll(1, dims=0))
    ends = {metric.low, metric.high}
    assert set(same) == {min(ends, key=lambda end: abs(end - same[0]))}
    np.testing.assert_allclose(opposite, (ends - set(same)).pop(), rtol=1e-12)
    if metric.better != "none":  # more alike is better, whichever end that is
        assert same[0] == getattr(metric, metric.better)


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
    assert list(metrics_taking("weights"))[-1] == "a_new_one"
    with pytest.raises(AttributeError):
        registry["a_new_one"].unit = "bits"


def test_unregister_is_the_way_back(registry):
    before = list(METRICS)
    register("a_new_one", **GOOD)(len)
    assert unregister("a_new_one").fn is len
    assert list(METRICS) == before
    with pytest.raises(ValueError, match="did you mean 'js_distance'"):
        unregister("js_distanc")
    assert metrics_taking("tea leaves") == {}


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
