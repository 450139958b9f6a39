"""Schedules: they end exactly at the ratio, never fall, and agree with the papers at points one can compute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twore.pruning import SCHEDULES, ratio_at

RATIO = st.floats(0, 1, exclude_max=True)


@given(st.sampled_from(SCHEDULES), RATIO, st.floats(0, 1), st.floats(0, 1), st.integers(1, 60))
def test_never_falls_and_ends_exactly(kind: str, ratio: float, one: float, two: float, rounds: int) -> None:
    early, late = (ratio_at(kind, ratio, p, rounds=rounds) for p in sorted((one, two)))
    assert 0 <= early <= late <= ratio
    assert ratio_at(kind, ratio, 1.0, rounds=rounds) == ratio


def test_gradual_is_zhu_and_gupta() -> None:
    assert ratio_at("gradual", 0.8, 0.0) == 0
    assert ratio_at("gradual", 0.8, 0.5) == pytest.approx(0.8 + (0 - 0.8) * (1 - 0.5) ** 3)  # 0.7
    assert ratio_at("gradual", 0.8, 0.25) == pytest.approx(0.8 * (1 - 0.421875))


def test_iterative_keeps_the_same_fraction_every_round() -> None:
    densities = [1 - ratio_at("iterative", 0.936, i / 3, rounds=3) for i in range(3)]  # 0.064 = 0.4 ** 3
    assert densities == pytest.approx([0.4, 0.16, 0.064])
    assert ratio_at("iterative", 0.936, 0.66, rounds=3) == ratio_at("iterative", 0.936, 1 / 3, rounds=3)
    assert ratio_at("iterative", 0.9, 2 / 3, rounds=3) == 0.9  # the last round trains at the full ratio


def test_every_round_starts_on_its_boundary() -> None:
    for rounds in range(1, 200):
        values = [ratio_at("iterative", 0.9, i / rounds, rounds=rounds) for i in range(rounds)]
        assert len(set(values)) == rounds  # i / rounds * rounds may be a hair below i


def test_one_shot_is_at_once_and_one_round_is_one_shot() -> None:
    assert ratio_at("one_shot", 0.9, 0.0) == ratio_at("iterative", 0.9, 0.0, rounds=1) == 0.9


def test_refusals() -> None:
    with pytest.raises(ValueError, match="did you mean 'gradual'"):
        ratio_at("gradul", 0.5, 0.5)
    with pytest.raises(ValueError, match="progress"):
        ratio_at("gradual", 0.5, 1.01)
    with pytest.raises(ValueError, match="progress"):
        ratio_at("gradual", 0.5, float("nan"))
    with pytest.raises(ValueError, match="ratio"):
        ratio_at("gradual", 1.0, 0.5)
    with pytest.raises(ValueError, match="rounds"):
        ratio_at("iterative", 0.5, 0.5, rounds=0)
