"""Distances, mask distance, prune perturbation and rate phase: values by hand, extremes, and what is refused."""

import doctest
import math
import sys

import pytest
import torch
from torch import nn

from twore.metrics import (
    distance_from_init,
    distance_from_previous,
    mask_distance,
    prune_perturbation,
    rate_phase,
)
from twore.pruning import make_masks, prunable_weights

DISTANCES = [distance_from_init, distance_from_previous]


def line(*values):
    return torch.tensor([values], dtype=torch.float64)  # (1, n): a linear weight


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_by_hand(distance):
    then = {"a": line(3.0, 0.0), "b": line(0.0, 4.0)}  # norm 5
    now = {"a": line(3.0, 6.0), "b": line(8.0, 4.0)}  # moved by 6 and 8: 10
    assert distance(now, then) == 2.0  # one norm over all tensors, not a mean over tensors
    assert distance(then, then) == 0.0
    assert distance(then, now) == pytest.approx(10 / math.sqrt(9 + 36 + 64 + 16))  # by the earlier norm
    assert math.isnan(distance(now, {n: w * 0 for n, w in then.items()}))


def test_mask_distance_extremes_by_hand():
    a, b = {"w": line(1.0, 2.0, 3.0, 4.0)}, {"w": line(4.0, 3.0, 2.0, 1.0)}
    assert mask_distance(a, a, 0.5) == 0.0
    assert mask_distance(a, b, 0.5) == 1.0  # the masks 0011 and 1100 differ everywhere
    assert mask_distance(a, b, 0.25) == 1.0  # 0111 and 1110 differ in 2 of 4 bits: all that can
    assert mask_distance(a, {"w": line(-2.0, 1.0, 3.0, 4.0)}, 0.25) == 1.0
    assert mask_distance(a, {"w": line(1.0, 3.0, 2.0, 4.0)}, 0.5) == 0.5  # 0011 and 0101: 2 of 4
    assert mask_distance(a, b, 0.0) == 0.0  # nothing is removed, nothing can differ
    assert mask_distance(a, {"w": -7 * a["w"]}, 0.5) == 0.0  # sizes only, up to scale


def test_mask_distance_counts_all_tensors_together():
    a = {"v": line(1.0, 2.0), "w": torch.arange(1.0, 9.0).reshape(2, 4)}
    b = {"w": a["w"], "v": line(2.0, 1.0)}
    assert mask_distance(a, b, 0.5) == 2 / 10  # both bits of v, of 2 + 8
    same_everywhere = {"v": 10 * a["v"], "w": a["w"]}
    assert mask_distance(a, same_everywhere, 0.5) == 0.0  # uniform: a tensor's scale does not count
    # global: from {1 2 | 1 2 3 ..} removed to {| 1 2 3 4 5}: v moves out of the removed set wholly
    assert mask_distance(a, same_everywhere, 0.5, allocation="global") > 0.0
    assert mask_distance(a, b, 0.5, allocation="global") <= 1.0


def test_mask_distance_is_the_share_of_bits_over_its_maximum():
    torch.manual_seed(0)
    a, b = ({"w": torch.randn(50, 40), "c": torch.randn(8, 4, 3, 3)} for _ in range(2))
    for ratio in (0.1, 0.5, 0.9):
        left, right = make_masks(a, ratio), make_masks(b, ratio)
        share = sum(int((left[n] != right[n]).sum()) for n in a) / (2000 + 288)
        assert mask_distance(a, b, ratio) == pytest.approx(share / (2 * min(ratio, 1 - ratio)), rel=0.01)
        # of two unrelated masks max(r, 1 - r) of what can differ does
        assert mask_distance(a, b, ratio) == pytest.approx(max(ratio, 1 - ratio), abs=0.06)


def test_prune_perturbation_by_hand():
    weights = {"a": line(1.0, 2.0, 2.0, 4.0), "b": line(-12.0, 0.0)}  # squares 25 and 144
    assert prune_perturbation(weights, 0.5) == pytest.approx(math.sqrt(5 / 169))  # 1 and 2 from a, 0 from b
    assert prune_perturbation(weights, 0.0) == 0.0
    assert prune_perturbation({"a": torch.ones(10, 10)}, 0.36) == pytest.approx(0.6)  # equal weights: sqrt(ratio)
    assert math.isnan(prune_perturbation({"a": torch.zeros(3, 3)}, 0.5))
    assert weights["a"].tolist() == [[1.0, 2.0, 2.0, 4.0]]  # untouched


def test_perturbation_grows_with_the_ratio_and_stays_below_its_bound():
    torch.manual_seed(1)
    weights = {"w": torch.randn(30, 30)}
    values = [prune_perturbation(weights, ratio) for ratio in (0.1, 0.5, 0.9, 0.99)]
    assert values == sorted(values)
    assert all(value < math.sqrt(ratio) for value, ratio in zip(values, (0.1, 0.5, 0.9, 0.99), strict=True))


def test_models_and_mappings_agree():
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)) for _ in range(2))
    a, b = prunable_weights(model), prunable_weights(other)
    for fn in (*DISTANCES, lambda x, y: mask_distance(x, y, 0.6), lambda x, y: prune_perturbation(x, 0.6)):
        assert fn(model, other) == fn(a, b)
    convs = [prunable_weights(m, ("conv",)) for m in (model, other)]
    assert distance_from_init(model, other, kinds="conv") == distance_from_init(*convs)
    assert distance_from_init(model, other, kinds=iter(["conv"])) == distance_from_init(*convs)
    assert distance_from_init(model, other, layers="0.*") == distance_from_init(*convs)
    model[1].running_mean += 1000.0  # statistics are no weights
    assert distance_from_init(model, other) == distance_from_init(a, b)


def test_sums_are_float64():
    then, now = {"w": torch.ones(4096, 4096)}, {"w": torch.ones(4096, 4096) + 2**-12}
    assert distance_from_init(now, then) == pytest.approx(2**-12, rel=1e-12)


def test_what_is_refused():
    a = {"w": torch.ones(3, 3)}
    for fn in (*DISTANCES, lambda x, y: mask_distance(x, y, 0.5)):
        with pytest.raises(ValueError, match="only in one"):
            fn(a, {"v": torch.ones(3, 3)})
        with pytest.raises(ValueError, match=r"\(3, 3\) in one checkpoint, \(3, 2\)"):
            fn(a, {"w": torch.ones(3, 2)})
        with pytest.raises(ValueError, match="NaN or inf"):
            fn(a, {"w": torch.full((3, 3), math.inf)})
    for ratio in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"ratio is the fraction removed"):
            mask_distance(a, a, ratio)
        with pytest.raises(ValueError, match=r"ratio is the fraction removed"):
            prune_perturbation(a, ratio)
    with pytest.raises(ValueError, match="complex"):
        prune_perturbation({"w": torch.ones(3, 3, dtype=torch.complex64)}, 0.5)


def test_rate_phase():
    assert rate_phase([0.1, 0.1, 0.01, 0.01, 0.001]) == [0, 0, 1, 1, 2]
    assert rate_phase([0.001, 0.1, 0.09, 0.08, 0.07]) == [0, 0, 0, 0, 0]  # warm-up and slow decay are no drops
    assert rate_phase([0.1, 0.05]) == [0, 1]
    assert rate_phase([]) == []
    assert rate_phase([0.0, 0.0]) == [0, 0]
    with pytest.raises(ValueError, match="finite"):
        rate_phase([0.1, math.nan])


def test_examples_run():
    assert doctest.testmod(sys.modules[distance_from_init.__module__]).failed == 0


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_weights_of_any_size_have_their_value(size):
    assert prune_perturbation({"w": line(3.0, 4.0) * size}, 0.5) == pytest.approx(0.6, rel=1e-12)
    for distance in DISTANCES:
        assert distance({"w": line(3.0, 4.0) * size}, {"w": line(3.0, 0.0) * size}) == pytest.approx(4 / 3, rel=1e-12)


def test_sparse_and_8_bit_weights_are_read_and_quantised_ones_refused():
    w = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    for other in (w.to_sparse(), w.to(torch.float8_e4m3fn)):
        assert prune_perturbation({"w": other}, 0.75) == prune_perturbation({"w": w}, 0.75)
        assert mask_distance({"w": other}, {"w": w}, 0.5) == 0.0
        assert distance_from_init({"w": other}, {"w": w}) == 0.0
    with pytest.warns(UserWarning, match="deprecated"):
        quantised = torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)
    with pytest.raises(ValueError, match=r"pass weight\.dequantize"):
        prune_perturbation({"w": quantised}, 0.5)
