"""make_masks: exact counts, deterministic ties and clear refusals, against a slow and obvious reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from twore.pruning import ALLOCATIONS, SCORES, apply_masks, audit_masks, make_masks, sparsity_report

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64]
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
RATIOS = st.one_of(st.sampled_from([0.0, 0.05, 0.5, 0.9, 0.999]), st.floats(0, 1, exclude_max=True))


@st.composite
def tensors(draw: st.DrawFn, dtype: torch.dtype | None = None) -> Tensor:
    """Small integers or normal numbers: the first are full of ties and zeros of both signs."""
    shape, seed = draw(SHAPES), draw(st.integers(0, 2**31))
    dtype = dtype or draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(seed)
    if draw(st.booleans()):
        values = torch.randint(-2, 3, shape, generator=generator).double()
    else:
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    return (-values).to(dtype)


def reference(scores: Tensor, k: int) -> Tensor:
    """Kept entries by a full stable sort: the k lowest go, the lowest index first among equals."""
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[torch.argsort(scores.double().reshape(-1), stable=True)[:k]] = False
    return kept.reshape(scores.shape)


def test_uniform_removes_exactly_k() -> None:  # 10 weights, ratio 0.2 -> exactly 2 removed, the two smallest
    mask = make_masks({"w": torch.arange(10.0)}, 0.2)["w"]
    assert mask.tolist() == [False, False] + [True] * 8


def test_ties_lose_the_lowest_index_first() -> None:
    assert make_masks({"w": torch.tensor([1.0, -1.0, 1.0, 0.5])}, 0.5)["w"].tolist() == [False, True, True, False]
    assert make_masks({"w": torch.zeros(5)}, 0.4)["w"].tolist() == [False, False, True, True, True]


def test_global_ties_lose_the_earliest_tensor_first() -> None:
    masks = make_masks({"b": torch.ones(3), "a": torch.ones(3)}, 2 / 3, allocation="global")
    assert masks["b"].tolist() == [False] * 3
    assert masks["a"].tolist() == [False, True, True]


@settings(max_examples=150, deadline=None)
@given(tensors(), RATIOS)
def test_uniform_equals_a_stable_sort(weight: Tensor, ratio: float) -> None:
    mask = make_masks({"w": weight}, ratio)["w"]
    assert mask.dtype == torch.bool and mask.shape == weight.shape and mask.device == weight.device
    assert torch.equal(mask, reference(weight.double().abs(), round(ratio * weight.numel())))


@settings(max_examples=150, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=4), RATIOS)
def test_global_equals_a_stable_sort_of_everything(values: list[Tensor], ratio: float) -> None:
    weights = {f"w{i}": value for i, value in enumerate(values)}
    masks = make_masks(weights, ratio, allocation="global")
    everything = torch.cat([value.double().abs().reshape(-1) for value in values])
    kept = torch.cat([mask.reshape(-1) for mask in masks.values()])
    assert torch.equal(kept, reference(everything, round(ratio * everything.numel())))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(tensors(), min_size=1, max_size=4),
    RATIOS,
    st.sampled_from(sorted(ALLOCATIONS)),
    st.sampled_from(sorted(SCORES)),
)
def test_counts_are_exact_for_every_allocation_and_score(
    values: list[Tensor], ratio: float, allocation: str, score: str
) -> None:
    weights = {f"w{i}": value for i, value in enumerate(values)}
    before = {name: value.clone() for name, value in weights.items()}
    masks = make_masks(weights, ratio, allocation=allocation, score=score, seed=3)
    assert list(masks) == list(weights)
    removed = {name: int((~mask).sum()) for name, mask in masks.items()}
    if allocation == "uniform":
        assert removed == {name: round(ratio * weight.numel()) for name, weight in weights.items()}
    else:
        assert sum(removed.values()) == round(ratio * sum(weight.numel() for weight in values))
    again = make_masks(weights, ratio, allocation=allocation, score=score, seed=3)
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert all(torch.equal(weights[name], before[name]) for name in weights)


@settings(max_examples=60, deadline=None)
@given(tensors(dtype=torch.float32), RATIOS)
def test_a_larger_ratio_removes_more_of_the_same(weight: Tensor, ratio: float) -> None:
    less, more = make_masks({"w": weight}, ratio / 2)["w"], make_masks({"w": weight}, ratio)["w"]
    assert not bool((more & ~less).any())


@settings(max_examples=60, deadline=None)
@given(SHAPES, RATIOS, st.integers(0, 2**31))
def test_agrees_with_torch_l1_unstructured(shape: tuple[int, ...], ratio: float, seed: int) -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))  # no ties
    mask = make_masks({"weight": module.weight}, ratio)["weight"]
    prune.l1_unstructured(module, "weight", amount=ratio)
    assert torch.equal(mask, module.weight_mask.bool())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_equal_values_give_equal_masks_in_every_dtype(dtype: torch.dtype) -> None:
    values = torch.randint(-8, 9, (6, 5, 3, 3), generator=torch.Generator().manual_seed(0)).float() / 8
    assert torch.equal(make_masks({"w": values}, 0.63)["w"], make_masks({"w": values.to(dtype)}, 0.63)["w"])


def test_the_memory_format_does_not_matter() -> None:
    values = torch.randint(-3, 4, (4, 6, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    plain = make_masks({"w": values}, 0.5)["w"]
    assert torch.equal(plain, make_masks({"w": values.to(memory_format=torch.channels_last)}, 0.5)["w"])
    assert torch.equal(plain, make_masks({"w": values.transpose(0, 1).contiguous().transpose(0, 1)}, 0.5)["w"])


def test_works_where_torch_is_told_to_be_deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        for allocation in ALLOCATIONS:
            make_masks({"w": torch.randn(20)}, 0.5, allocation=allocation)
    finally:
        torch.use_deterministic_algorithms(False)


def test_extreme_values_rank_by_magnitude() -> None:
    infinite = make_masks({"w": torch.tensor([1.0, -math.inf, 0.0, math.inf])}, 0.5)["w"]
    assert infinite.tolist() == [False, True, False, True]
    integers = torch.tensor([-128, 1, 127, 0], dtype=torch.int8)  # |-128| does not fit int8
    assert make_masks({"w": integers}, 0.5)["w"].tolist() == [True, False, True, False]
    smallest = torch.tensor([-(2**63), 5, 6], dtype=torch.int64)
    assert make_masks({"w": smallest}, 2 / 3)["w"].tolist() == [True, False, False]
    complexes = torch.tensor([3 + 4j, 1j, 2 + 0j])
    assert make_masks({"w": complexes}, 1 / 3)["w"].tolist() == [True, False, True]


def test_an_empty_tensor_has_an_empty_mask() -> None:
    for allocation in ALLOCATIONS:
        masks = make_masks({"none": torch.zeros(0, 3), "w": torch.arange(1.0, 5.0)}, 0.5, allocation=allocation)
        assert masks["none"].shape == (0, 3) and masks["w"].tolist() == [False, False, True, True]


def test_random_depends_on_seed_name_and_shape_only() -> None:
    zeros, ones = torch.zeros(40, 5), torch.ones(40, 5, dtype=torch.float64)
    masks = make_masks({"a": zeros, "b": zeros}, 0.5, score="random")
    assert torch.equal(masks["a"], make_masks({"a": ones}, 0.5, score="random")["a"])
    assert not torch.equal(masks["a"], masks["b"])
    assert not torch.equal(masks["a"], make_masks({"a": zeros}, 0.5, score="random", seed=1)["a"])
    state = torch.random.get_rng_state()
    make_masks({"a": zeros}, 0.5, score="random")
    assert torch.equal(state, torch.random.get_rng_state())  # the global stream is left alone


def test_random_masks_are_golden() -> None:  # a change here changes the identity of every randomly pruned cell
    removed = ~make_masks({"conv1.weight": torch.zeros(20)}, 0.25, score="random", seed=7)["conv1.weight"]
    assert removed.nonzero().flatten().tolist() == [7, 11, 12, 13, 19]


def test_random_removes_every_position_equally_often() -> None:
    removed = sum(~make_masks({"w": torch.zeros(10)}, 0.3, score="random", seed=seed)["w"] for seed in range(400))
    assert int(removed.sum()) == 1200
    assert all(abs(int(times) - 120) < 50 for times in removed)  # 50 is over 5 s.d.


def test_a_function_scores() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    (weight * torch.tensor([4.0, 0.1, 1.0, 0.1])).sum().backward()
    seen = []

    def snip(name: str, value: Tensor) -> Tensor:
        seen.append(name)
        return (value * value.grad).abs()  # 4, 0.2, 3, 0.4

    assert make_masks({"w": weight}, 0.5, score=snip)["w"].tolist() == [True, False, True, False]
    assert seen == ["w"]


@pytest.mark.parametrize(
    "score", [lambda n, w: w[:1], lambda n, w: 1.0, lambda n, w: w * math.nan, lambda n, w: w * 1j]
)
def test_a_bad_score_function_is_refused(score) -> None:
    with pytest.raises(ValueError, match="score"):
        make_masks({"w": torch.ones(3)}, 0.5, score=score)


@pytest.mark.parametrize("ratio", [1, 1.0, -0.1, math.nan, math.inf, "0.5", None])
def test_a_ratio_out_of_range_is_refused(ratio) -> None:
    with pytest.raises(ValueError, match=r"ratio is the fraction removed, in \[0, 1\): got"):
        make_masks({"w": torch.ones(3)}, ratio)


def test_what_cannot_be_ranked_is_refused_by_name() -> None:
    fine = torch.ones(3)
    with pytest.raises(ValueError, match="bad has NaN"):
        make_masks({"fine": fine, "bad": torch.tensor([1.0, math.nan])}, 0.5)
    with pytest.raises(ValueError, match="bad has no data"):
        make_masks({"fine": fine, "bad": torch.ones(3, device="meta")}, 0.5)
    with pytest.raises(ValueError, match="bad has no data"):
        make_masks({"bad": nn.LazyLinear(3).weight}, 0.5)
    with pytest.raises(ValueError, match="bad is a list"):
        make_masks({"bad": [1.0]}, 0.5)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="no weights"):
        make_masks({}, 0.5)
    with pytest.raises(ValueError, match="bad has infinite entries"):
        make_masks({"bad": torch.tensor([1.0, math.inf])}, 0.5, allocation="lamp")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'magnitude'"):
        make_masks({"w": torch.ones(3)}, 0.5, score="magnitud")
    with pytest.raises(ValueError, match="did you mean 'global'"):
        make_masks({"w": torch.ones(3)}, 0.5, allocation="globl")


def test_apply_zeroes_exactly_and_nothing_else() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[math.inf, -1.0], [math.nan, 2.0]])
    bias = layer.bias.detach().clone()
    masks = {"weight": torch.tensor([[False, False], [False, True]])}
    assert audit_masks(layer, masks).revived == 3
    apply_masks(layer, masks)
    assert layer.weight.tolist() == [[0, 0], [0, 2]]
    assert not layer.weight.signbit().any()  # 0.0, not -0.0
    assert torch.equal(layer.bias, bias) and layer.weight.requires_grad


def test_audit_counts_and_names_what_came_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    masks = make_masks({"0.weight": model[0].weight, "1.weight": model[1].weight}, 0.5)
    apply_masks(model, masks)
    audit = audit_masks(model, masks)
    assert (audit.size, audit.kept, audit.density, audit.revived, audit.revived_names) == (24, 12, 0.5, 0, ())
    with torch.no_grad():
        model[1].weight += 1e-30
    audit = audit_masks(model, masks)
    assert (audit.revived, audit.revived_names) == (4, ("1.weight",))
    assert math.isnan(audit_masks(model, {}).density)


def test_masks_that_fit_no_weight_are_listed() -> None:
    layer = nn.Linear(3, 2)
    for misfit in (
        {"weigth": torch.ones(2, 3).bool()},
        {"weight": torch.ones(2, 2).bool()},
        {"weight": torch.ones(2, 3)},
    ):
        for function in (apply_masks, audit_masks):
            with pytest.raises(ValueError, match=next(iter(misfit))):
                function(layer, misfit)
    with pytest.raises(ValueError, match="no data"):
        apply_masks(nn.Linear(3, 2, device="meta"), {"weight": torch.ones(2, 3).bool()})


def test_sparsity_report_is_a_row_a_tensor() -> None:
    report = sparsity_report({"b": torch.tensor([[True, False]]), "a": torch.tensor([True, True])})
    assert list(report.columns) == ["name", "shape", "size", "kept", "density"]
    assert report.values.tolist() == [["b", (1, 2), 2, 1, 0.5], ["a", (2,), 2, 2, 1.0]]
    assert list(sparsity_report({}).columns) == list(report.columns)
