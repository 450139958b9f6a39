"""Layer-wise counts: ERK and LAMP against hand-made values and slow references; the clamp keeps the total exact."""

from __future__ import annotations

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twore.pruning import make_masks


def kept(shapes: list[tuple[int, ...]], ratio: float, allocation: str) -> list[int]:
    weights = {str(i): torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)}
    return [int(mask.sum()) for mask in make_masks(weights, ratio, allocation=allocation).values()]


def test_erk_by_hand() -> None:
    # sums of dims 20 and 40, sizes 100 and 400; half of 500 kept = 250, shared 1 : 2 = 83.3 : 166.7
    assert kept([(10, 10), (20, 20)], 0.5, "erk") == [83, 167]


def test_erk_clamps_and_redistributes() -> None:
    # sums 4 and 40, sizes 4 and 400; 40 of 404 kept, quotas 3.64 and 36.36: the larger remainder is rounded up
    assert kept([(2, 2), (20, 20)], 0.9, "erk") == [4, 36]
    # 202 of 404 kept: the small one's share 18.4 exceeds its 4, so it stays whole and the large one takes the rest
    assert kept([(2, 2), (20, 20)], 0.5, "erk") == [4, 198]


def test_erk_keeps_small_kernels_denser() -> None:
    # PreResNet's first stage to its last: density falls as sum / prod of dims falls
    shapes = [(16, 3, 3, 3), (16, 16, 3, 3), (32, 32, 3, 3), (64, 64, 3, 3)]
    sizes = [torch.Size(shape).numel() for shape in shapes]
    densities = [count / size for count, size in zip(kept(shapes, 0.9, "erk"), sizes, strict=True)]
    assert densities == sorted(densities, reverse=True) and densities[0] <= 1


def erk_reference(shapes: list[tuple[int, ...]], total_kept: int) -> list[Fraction]:
    """The real-valued quotas: grow one common factor until the clamped densities sum to the total."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    quotas = [Fraction(0)] * len(shapes)
    capped: set[int] = set()
    while True:
        budget = total_kept - sum(sizes[i] for i in capped)
        share = sum(sum(shapes[i]) for i in range(len(shapes)) if i not in capped)
        for i, shape in enumerate(shapes):
            quotas[i] = Fraction(sizes[i]) if i in capped else Fraction(budget * sum(shape), share)
        over = {i for i in range(len(shapes)) if quotas[i] > sizes[i]}
        if not over:
            return quotas
        capped |= over


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True),
)
def test_erk_stays_within_one_of_its_quota(shapes: list[tuple[int, ...]], ratio: float) -> None:
    counts = kept(shapes, ratio, "erk")
    sizes = [torch.Size(shape).numel() for shape in shapes]
    total_kept = sum(sizes) - round(ratio * sum(sizes))
    assert sum(counts) == total_kept
    for count, size, quota in zip(counts, sizes, erk_reference(shapes, total_kept), strict=True):
        assert 0 <= count <= size and abs(count - quota) < 1


def lamp_reference(values: list[list[float]], k: int) -> list[list[bool]]:
    """LAMP by its definition: sort each tensor, divide by what ranks at or above, remove the k lowest of all."""
    scored = []
    for number, tensor in enumerate(values):
        order = sorted(range(len(tensor)), key=lambda i: (abs(tensor[i]), i))  # noqa: B023  used at once
        for rank, index in enumerate(order):
            above = sum(tensor[i] ** 2 for i in order[rank:])
            scored.append((tensor[index] ** 2 / above if above else 0.0, number, index))
    masks = [[True] * len(tensor) for tensor in values]
    for _, number, index in sorted(scored)[:k]:
        masks[number][index] = False
    return masks


def test_lamp_by_hand() -> None:
    # a: 1/5, 4/4; b: 9/109, 100/100 (the scale of a tensor does not matter) -> b's 3 goes first, then a's 1
    weights = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([10.0, 3.0])}
    masks = make_masks(weights, 0.25, allocation="lamp")
    assert masks["a"].tolist() == [True, True] and masks["b"].tolist() == [True, False]
    masks = make_masks(weights, 0.5, allocation="lamp")
    assert masks["a"].tolist() == [False, True] and masks["b"].tolist() == [True, False]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(-16, 16), min_size=1, max_size=12), min_size=1, max_size=4),
    st.floats(0, 1, exclude_max=True),
)
def test_lamp_agrees_with_its_definition(values: list[list[int]], ratio: float) -> None:
    weights = {str(i): torch.tensor(tensor, dtype=torch.float64) for i, tensor in enumerate(values)}
    masks = make_masks(weights, ratio, allocation="lamp")
    k = round(ratio * sum(map(len, values)))
    expected = lamp_reference([list(map(float, tensor)) for tensor in values], k)
    # equal scores of two tensors may round apart in the two computations: compare what is left by score, not by place
    got = [mask.tolist() for mask in masks.values()]
    assert sum(map(sum, got)) == sum(map(sum, expected)) == sum(map(len, values)) - k
    assert lamp_mass(values, got) == lamp_mass(values, expected)


def lamp_mass(values: list[list[int]], masks: list[list[bool]]) -> list[float]:
    """The sorted scores that stay, rounded to 12 digits."""
    left = []
    for tensor, mask in zip(values, masks, strict=True):
        order = sorted(range(len(tensor)), key=lambda i: (abs(tensor[i]), i))  # noqa: B023
        for rank, index in enumerate(order):
            above = sum(tensor[i] ** 2 for i in order[rank:])
            if mask[index]:
                left.append(round(tensor[index] ** 2 / above, 12) if above else 0.0)
    return sorted(left)


def test_lamp_ignores_scale_and_never_empties_a_live_layer() -> None:
    weights = {"big": torch.randn(100) * 1e6, "small": torch.randn(100) * 1e-6}
    masks = make_masks(weights, 0.98, allocation="lamp")
    assert int(masks["big"].sum()) >= 1 and int(masks["small"].sum()) >= 1
    assert int(make_masks(weights, 0.5, allocation="global")["small"].sum()) == 0  # what LAMP is for


def test_a_score_says_which_and_the_allocation_how_many() -> None:
    weights = {"a": torch.randn(30), "b": torch.randn(70) * 5}
    for allocation in ("erk", "lamp"):
        magnitude = make_masks(weights, 0.7, allocation=allocation)
        random = make_masks(weights, 0.7, allocation=allocation, score="random")
        assert [int(m.sum()) for m in magnitude.values()] == [int(m.sum()) for m in random.values()]
        assert not torch.equal(magnitude["b"], random["b"])
