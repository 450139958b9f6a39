"""The k lowest entries: large tensors are searched in blocks, and give exactly what small ones do."""

from __future__ import annotations

import pytest
import torch

from twore.pruning import make_masks, selection
from twore.pruning.selection import lowest

INF = float("inf")
VALUES = {
    "spread": torch.randn(1000, generator=torch.Generator().manual_seed(0)),
    "ties, as of 8-bit weights": torch.randn(1000, generator=torch.Generator().manual_seed(1)).mul(4).round(),
    "all equal": torch.ones(50),
    "signs of zero, and infinities": torch.tensor([0.0, -0.0, INF, -INF, 1e-45, -1e-45, 0.0, -0.0, 3e38, -3e38]),
    "neighbours in their last bit": torch.arange(300, dtype=torch.int32).add(0x3F800000 - 150).view(torch.float32),
}


@pytest.mark.parametrize("name", VALUES)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = VALUES[name]
    counts = sorted({0, 1, 2, len(scores) // 3, len(scores) // 2, len(scores) - 1, len(scores)})
    whole = [lowest(scores, k) for k in counts]
    monkeypatch.setattr(selection, "BLOCK", 7)
    monkeypatch.setattr(selection, "LARGE", 7)
    for k, expected in zip(counts, whole):
        found = lowest(scores, k)
        assert int(found.sum()) == k and torch.equal(found, expected), k


def test_large_tensors_do_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    real = selection._lowest_in_blocks
    monkeypatch.setattr(selection, "_lowest_in_blocks", lambda scores, k: called.append(k) or real(scores, k))
    lowest(torch.rand(selection.LARGE + 1), 5)
    lowest(torch.rand(100), 5)
    assert called == [5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
def test_half_types_are_ranked_as_float32_in_blocks_too(dtype, allocation, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {name: torch.randn(shape).to(dtype) for name, shape in {"a": (40, 30), "b": (5, 4), "c": (30, 9)}.items()}
    for ratio in (0.0, 0.3, 0.9):
        expected = make_masks({n: w.float() for n, w in weights.items()}, ratio, allocation=allocation)
        with monkeypatch.context() as patch:
            patch.setattr(selection, "BLOCK", 50)
            patch.setattr(selection, "LARGE", 50)  # a and c are large then, b is not
            assert selection.rankable(weights["a"]).dtype == dtype
            found = make_masks(weights, ratio, allocation=allocation)
        assert all(torch.equal(found[name], mask) for name, mask in expected.items())
