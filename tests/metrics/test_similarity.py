"""model_similarity and agreement: values by hand, streaming, and what is refused."""

import doctest
import math

import numpy as np
import pytest
import torch

from twore.metrics import PairAccumulator, agreement, js_divergence, model_similarity, pair_metrics, similarity


def batches(x, sizes):
    yield from torch.split(x, sizes)


def test_values_by_hand():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.2, 0.8]])
    q = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.0, 1.0], [0.2, 0.8]])
    assert model_similarity(p, q) == pytest.approx(math.log(2) / 4, rel=1e-6)  # one of four rows differs, wholly
    assert agreement(p, q) == 0.75
    assert isinstance(model_similarity(p, q), float)
    assert pair_metrics(p, q) == {"model_similarity": model_similarity(p, q), "agreement": 0.75}


def test_agreement_takes_the_first_of_equal_maxima():
    assert agreement(torch.tensor([[0.4, 0.4, 0.2]]), torch.tensor([[0.5, 0.3, 0.2]])) == 1.0
    assert agreement(torch.tensor([[0.4, 0.4, 0.2]]), torch.tensor([[0.3, 0.5, 0.2]])) == 0.0


def test_a_short_last_batch_weighs_as_its_rows(probabilities):
    p, q = probabilities(5, 3, 1), probabilities(5, 3, 2)
    js = js_divergence(p, q)
    mean_of_means = (js[:4].mean() + js[4:].mean()) / 2
    streamed = model_similarity(batches(p, [4, 1]), batches(q, [4, 1]))
    assert streamed == pytest.approx(float(js.mean()), rel=1e-12)
    assert abs(streamed - float(mean_of_means)) > 1e-3  # the mistake this guards against would show


def test_the_two_sides_may_be_cut_differently(probabilities):
    p, q = probabilities(10, 4, 1), probabilities(10, 4, 2)
    whole = pair_metrics(p, q)
    for left, right in [([10], [3, 3, 4]), ([1] * 10, [9, 1]), ([0, 5, 0, 5, 0], [4, 6])]:
        cut = pair_metrics(batches(p, left), batches(q, right))
        assert cut == pytest.approx(whole, rel=1e-12)
    assert pair_metrics(p, [q[:2].numpy(), q[2:].numpy()]) == pytest.approx(whole, rel=1e-12)


def test_large_inputs_are_compared_in_chunks(probabilities, monkeypatch):
    p, q = probabilities(10, 4, 1), probabilities(10, 4, 2)
    whole, seen = pair_metrics(p, q), []
    monkeypatch.setattr(similarity, "CHUNK", 12)

    def spy(a, b):
        seen.append(len(a))
        return js_divergence(a, b)

    monkeypatch.setitem(similarity.ROW_FUNCTIONS, "model_similarity", spy)
    assert pair_metrics(p, q) == pytest.approx(whole, rel=1e-12)
    assert seen == [3, 3, 3, 1]


def test_sums_are_float64():
    # 2^24 + 1 is no float32: a float32 running sum of ones stops growing there
    total = PairAccumulator(["agreement"])
    total.add(torch.ones(1, 1), torch.ones(1, 1))
    total._sums["agreement"] = 2.0**24
    total.add(torch.ones(1, 1), torch.ones(1, 1))
    assert total._sums["agreement"] == 2**24 + 1


def test_accumulator_equals_the_functions_and_a_refused_batch_adds_nothing(probabilities):
    p, q = probabilities(6, 3, 1), probabilities(6, 3, 2)
    total = PairAccumulator()
    total.add(p[:4], q[:4])
    with pytest.raises(ValueError, match="NaN"):
        total.add(p[:2], q[:2] * math.nan)
    with pytest.raises(ValueError, match="classes"):
        total.add(probabilities(2, 4), probabilities(2, 4))
    total.add(p[4:], q[4:])
    assert total.rows == 6
    assert total.result() == pytest.approx(pair_metrics(p, q), rel=1e-12)
    with pytest.raises(ValueError, match="model_similarity, agreement"):
        PairAccumulator(["agrement"])


@pytest.mark.parametrize("metric", [model_similarity, agreement, pair_metrics])
def test_unequal_or_empty_inputs_are_refused(probabilities, metric):
    p, q = probabilities(6, 3, 1), probabilities(6, 3, 2)
    with pytest.raises(ValueError, match="one shape"):
        metric(p, q[:5])
    with pytest.raises(ValueError, match="one shape"):
        metric(p, probabilities(6, 4))
    with pytest.raises(ValueError, match="p ended after 4 rows"):
        metric(batches(p[:4], 2), batches(q, 3))
    with pytest.raises(ValueError, match="q ended after 5 rows"):
        metric(batches(p, 2), batches(q[:5], 5))
    with pytest.raises(ValueError, match="no rows"):
        metric(p[:0], q[:0])
    with pytest.raises(ValueError, match="no rows"):
        metric(iter(()), iter(()))
    consumed = batches(p, 2)
    with pytest.raises(ValueError, match="same iterator"):
        metric(consumed, consumed)
    with pytest.raises(ValueError, match="row a sample"):
        metric(p[0], q[0])
    with pytest.raises(TypeError, match="list"):
        metric([p.tolist()], [q.tolist()])


def test_gradients_are_not_kept_and_inputs_not_changed(probabilities):
    p = probabilities(4, 3).requires_grad_()
    q = np.asarray(probabilities(4, 3, 1))
    before = q.copy()
    assert model_similarity(p, q) > 0
    np.testing.assert_array_equal(q, before)


def test_examples_run():
    assert doctest.testmod(similarity).failed == 0
