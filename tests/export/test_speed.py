"""The statement of speed: what is measured and how it is said; never how fast this machine is."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from twore.export import SparseSpeed, sparse_speed
from twore.export.speed import COLUMNS


def test_equal_shapes_are_timed_once_and_counted() -> None:
    half = torch.ones(8, 8).triu()  # 36 of 64
    weights = {"a": torch.eye(8), "b": half, "c": half[:4], "full": torch.ones(9, 9), "conv": torch.ones(2, 2, 3, 3)}
    speed = sparse_speed(weights, batch=(1, 4), seconds=0.001)
    assert list(speed.table.columns) == COLUMNS and (speed.convolutions, speed.dense) == (1, 1)
    rows = {(row.shape, row.batch): row for row in speed.table.itertuples()}
    assert set(rows) == {((8, 8), 1), ((8, 8), 4), ((4, 8), 1), ((4, 8), 4)}
    assert rows[(8, 8), 1].layers == 2 and rows[(8, 8), 1].density == pytest.approx((8 / 64 + 36 / 64) / 2)
    assert (speed.table[["dense_ms", "sparse_ms"]] > 0).all(axis=None)
    assert list(speed.table["speedup"]) == pytest.approx(list(speed.table["dense_ms"] / speed.table["sparse_ms"]))


def test_half_weights_are_measured_as_float32() -> None:
    assert len(sparse_speed({"a": torch.eye(8, dtype=torch.bfloat16)}, batch=2, seconds=0.001).table) == 1


def made(dense_ms: float, sparse_ms: float) -> SparseSpeed:
    rows = [((10, 10), 3, 0.1, 1, dense_ms, sparse_ms, dense_ms / sparse_ms), ((20, 5), 1, 0.5, 1, 1.0, 1.0, 1.0)]
    return SparseSpeed(pd.DataFrame(rows, columns=COLUMNS), "cpu", 2, 0, 0)


def test_the_sentence_says_slower_or_faster_by_how_much() -> None:
    slow = made(1.0, 4.0)  # (3 * 1 + 1) / (3 * 4 + 1)
    assert slow.speedup(1) == pytest.approx(4 / 13)
    assert "3.2 times slower than dense for 1 row" in slow.sentence() and "2 threads" in slow.sentence()
    assert "With 20.0% of the pruned linear weights kept" in slow.sentence()  # (300 * 0.1 + 100 * 0.5) / 400
    assert "2.5 times faster" in made(3.0, 1.0).sentence()  # 10 / 4
    with pytest.raises(ValueError, match="was not measured"):
        slow.speedup(7)


def test_convolutions_or_dense_layers_alone_have_nothing_to_measure() -> None:
    for weight, words in ((torch.ones(2, 2, 3, 3), "no convolution"), (torch.ones(2, 2), "too few zeros")):
        speed = sparse_speed({"w": weight})
        assert speed.table.empty and words in speed.sentence()


@pytest.mark.parametrize("options", [{"batch": 0}, {"batch": ()}, {"seconds": 0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match="batch is|seconds is"):
        sparse_speed({"a": torch.eye(2)}, **options)
