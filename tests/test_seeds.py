from __future__ import annotations

import torch

from twore.seeds import derive_seed, seed_everything


def test_golden():
    """The random streams of all stored results hang on this."""
    assert derive_seed("order", 0, 7) == 5250115025885864895


def test_names_and_numbers_are_told_apart():
    paths = [("a", 1), ("a", "1"), ("a/1",), ("a", 1, 1), ("b", 1), (1, "a")]
    assert len({derive_seed(*path) for path in paths}) == len(paths)


def test_range():
    assert all(0 <= derive_seed("x", i) < 2**63 for i in range(200))


def test_seed_everything_repeats():
    seed_everything(derive_seed("x"))
    a = torch.randn(3)
    seed_everything(derive_seed("x"))
    assert torch.equal(a, torch.randn(3))
