"""Batches hold every pair once within the budget, and their number does not depend on the seed."""

from __future__ import annotations

import numpy as np
import pytest

from twore.data.token_batches import evaluation_batches, padded, token_batches
from twore.data.tokens import TokenPairs, Tokens

DRAW = np.random.default_rng(0)
SOURCE = DRAW.integers(2, 60, 5_000)
TARGET = np.clip(SOURCE + DRAW.integers(-8, 9, 5_000), 1, None)


@pytest.mark.parametrize("budget", [68, 300, 1_500])
def test_every_pair_once_within_the_budget(budget):
    batches = token_batches(SOURCE, TARGET, budget, seed=3)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(5_000))
    for rows in batches:
        assert len(rows) * SOURCE[rows].max() <= budget and len(rows) * TARGET[rows].max() <= budget


def test_the_seed_orders_but_does_not_count():
    epochs = [token_batches(SOURCE, TARGET, 400, seed) for seed in range(5)]
    assert len({len(batches) for batches in epochs}) == 1
    first, second = ({tuple(sorted(rows)) for rows in epoch} for epoch in epochs[:2])
    assert len(first & second) < 0.2 * len(first)  # other pairs come together, not only other orders of batches
    sizes = [[len(rows) for rows in epoch] for epoch in epochs]
    assert sizes[0] != sizes[1] and sorted(sizes[0]) == sorted(sizes[1])
    again = token_batches(SOURCE, TARGET, 400, 0)
    assert all(np.array_equal(a, b) for a, b in zip(epochs[0], again, strict=True))


def padding_share(source, target, batches):
    """The fraction of the batches' B x S + B x T places that is padding."""
    places = sum(len(rows) * (int(source[rows].max()) + int(target[rows].max())) for rows in batches)
    return 1 - int(source.sum() + target.sum()) / places


def test_few_batches_and_little_padding():
    batches = token_batches(SOURCE, TARGET, 1_500, seed=0)
    longer = np.maximum(SOURCE, TARGET)
    assert len(batches) <= 1.02 * longer.sum() / 1_500 + 59  # a perfect packing, and one short run a length
    assert padding_share(SOURCE, TARGET, batches) < 0.07
    shuffled = np.array_split(DRAW.permutation(5_000), len(batches))
    assert padding_share(SOURCE, TARGET, shuffled) > 0.3


def test_by_hand():
    batches = token_batches(np.array([2, 4, 2, 3]), np.array([3, 1, 1, 3]), 6, seed=0)
    # By the longer side: pair 2 (2), then 0 and 3 (3 each, by chance), then 1 (4). 2 x 3 <= 6 < 3 x 3 and 2 x 4.
    found = sorted(sorted(rows.tolist()) for rows in batches)
    assert found in ([[0, 2], [1], [3]], [[0], [1], [2, 3]])


def test_too_long_is_named():
    with pytest.raises(ValueError, match="pair 1 has 9 tokens a side, more than the 8 of a whole batch: raise"):
        token_batches(np.array([1, 9]), np.array([1, 1]), 8, seed=0)
    with pytest.raises(ValueError, match="at least 1: got 0"):
        token_batches(np.array([1]), np.array([1]), 0, seed=0)
    with pytest.raises(ValueError, match="one source and one target a pair"):
        token_batches(np.array([1, 2]), np.array([1]), 8, seed=0)
    with pytest.raises(ValueError, match="more than any model takes"):
        token_batches(np.array([2**28]), np.array([1]), 2**30, seed=0)


def test_one_pair_and_a_budget_it_just_fits():
    assert [rows.tolist() for rows in token_batches(np.array([8]), np.array([7]), 8, seed=0)] == [[0]]
    assert token_batches(np.zeros(0, int), np.zeros(0, int), 8, seed=0) == []


def test_evaluation_batches_hold_every_row_once_longest_first():
    batches = evaluation_batches(SOURCE, 500)
    assert all(len(rows) * SOURCE[rows].max() <= 500 for rows in batches)
    assert SOURCE[batches[0]].max() == SOURCE.max() and SOURCE[batches[-1]].min() == SOURCE.min()
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(SOURCE)))


def test_padded_rectangles():
    pairs = TokenPairs(Tokens.of([[5], [6, 7], []]), Tokens.of([[8, 9, 10], [11], [12]]))
    source, target = padded(pairs, np.array([1, 0]))
    assert source.tolist() == [[6, 7, 2], [5, 2, 0]]
    assert target.tolist() == [[11, 2, 0, 0], [8, 9, 10, 2]]
    assert str(source.dtype) == "torch.int64" and padded(pairs, np.array([2]))[0].tolist() == [[2]]
