"""Optimal epochs and the regime boundary, on tables small enough to check in the head."""

import math

import numpy as np
import pandas as pd
import pytest

from twore.analysis import mean_grid, optimal_epochs, regime_boundary, setting_columns

EPOCHS = (10, 20, 30)
LIGHT = (80.0, 85.0, 90.0)  # best at the last epoch
HEAVY = (60.0, 70.0, 64.0)  # best at epoch 20, 6 points above the last


def table(rows: dict[float, tuple[float, ...]], seeds=(0,), dense=(0,), noise=0.0) -> pd.DataFrame:
    """A row a cell; the score of seed number i is shifted by noise * (i - mean), so that means stay as given."""
    shift = {seed: noise * (i - (len(seeds) - 1) / 2) for i, seed in enumerate(seeds)}
    return pd.DataFrame([
        {"dense_seed": d, "epoch": epoch, "ratio": ratio, "finetune_seed": seed, "score": score + shift[seed]}
        for d in dense for ratio, scores in rows.items() for epoch, score in zip(EPOCHS, scores) for seed in seeds
    ])  # fmt: skip


def row(frame: pd.DataFrame, ratio: float) -> pd.Series:
    return frame.set_index("ratio").loc[ratio]


def test_best_epoch_score_and_gain_of_each_ratio():
    best = optimal_epochs(table({0.9: HEAVY, 0.2: LIGHT}))
    assert best["ratio"].tolist() == [0.2, 0.9]
    assert best["epoch"].tolist() == [30, 20]
    assert best["score"].tolist() == [90.0, 70.0]
    assert best["gain"].tolist() == [0.0, 6.0]
    assert best["final_epoch"].tolist() == [30, 30] and best["final_score"].tolist() == [90.0, 64.0]


def test_the_four_columns_of_the_contract_are_enough_in_any_order():
    frame = table({0.2: LIGHT, 0.9: HEAVY})[["ratio", "score", "finetune_seed", "epoch"]]
    assert optimal_epochs(frame)["epoch"].tolist() == [30, 20]
    assert regime_boundary(frame).upper == 0.9


def test_earliest_epoch_wins_an_exact_tie_even_when_the_mean_is_rounded():
    seeds = {0: (0.1, 0.3), 1: (0.2, 0.2), 2: (0.3, 0.1)}  # sums of tenths: equal means, unequal in floating point
    rows = [(epoch, 0.5, seed, score) for seed, pair in seeds.items() for epoch, score in zip((1, 2), pair)]
    frame = pd.DataFrame(rows, columns=["epoch", "ratio", "finetune_seed", "score"])
    best = optimal_epochs(frame).iloc[0]
    assert best["epoch"] == 1
    assert optimal_epochs(table({0.5: (70.0, 70.0, 69.0)})).iloc[0]["ties"] == (10, 20)


def test_ties_lie_within_one_pooled_standard_deviation_of_the_best():
    noisy = table({0.5: (88.9, 90.0, 89.1)}, seeds=(0, 1, 2), noise=1.0)  # s.d. of (-1, 0, 1) is 1 exactly
    best = optimal_epochs(noisy).iloc[0]
    assert best["spread"] == pytest.approx(1.0)
    assert best["ties"] == (20, 30)
    alone = optimal_epochs(table({0.5: (88.9, 90.0, 89.1)})).iloc[0]
    assert alone["ties"] == (20,) and math.isnan(alone["spread"]) and math.isnan(alone["gain_sd"])


def test_dense_seeds_are_averaged_after_their_fine_tune_seeds():
    rows = [(0, 10, 0, 60.0), (0, 10, 1, 62.0), (1, 10, 0, 71.0)]  # (61 + 71) / 2 = 66, not the mean of three, 64.33
    frame = pd.DataFrame(rows, columns=["dense_seed", "epoch", "finetune_seed", "score"]).assign(ratio=0.5)
    assert mean_grid(frame).loc[0.5, 10] == pytest.approx(66.0)


def test_gain_sd_is_over_dense_seeds_when_there_are_two():
    first, second = table({0.9: HEAVY}, seeds=(0, 1)), table({0.9: (60.0, 70.0, 66.0)}, seeds=(0, 1))
    best = optimal_epochs(pd.concat([first, second.assign(dense_seed=1)])).iloc[0]
    assert best["gain"] == pytest.approx(5.0) and best["units"] == 2
    assert best["gain_sd"] == pytest.approx(np.std([6.0, 4.0], ddof=1))


def test_the_choice_is_made_on_validation_and_reported_on_test():
    frame = table({0.9: HEAVY})
    frame["valid_score"] = [75.0, 74.0, 60.0]
    best = optimal_epochs(frame).iloc[0]
    assert (best["epoch"], best["score"], best["gain"]) == (10, 60.0, -4.0)
    assert (best["oracle_epoch"], best["oracle_score"], best["regret"]) == (20, 70.0, 10.0)
    assert optimal_epochs(frame, select="score").iloc[0]["epoch"] == 20
    frame.loc[0, "valid_score"] = np.nan  # no longer complete
    assert optimal_epochs(frame).iloc[0]["epoch"] == 20
    with pytest.raises(ValueError, match="valid_score"):
        optimal_epochs(frame, select="valid_score")


def test_ratios_within_1e_9_are_one_ratio():
    frame = table({0.9: HEAVY}, seeds=(0, 1))
    frame.loc[frame["finetune_seed"] == 1, "ratio"] = 1 - 0.1 + 1e-12
    assert len(optimal_epochs(frame)) == 1


def test_a_missing_cell_is_averaged_over_and_a_missing_last_one_has_no_gain():
    frame = table({0.2: LIGHT, 0.9: HEAVY})
    frame = frame[~((frame["ratio"] == 0.9) & (frame["epoch"] == 30))]
    best = row(optimal_epochs(frame), 0.9)
    assert best["epoch"] == 20 and best["final_epoch"] == 30 and math.isnan(best["gain"])
    assert regime_boundary(frame).upper is None


@pytest.mark.parametrize("name", ["epoch", "ratio", "score", "finetune_seed"])
def test_a_missing_column_is_named(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        optimal_epochs(table({0.9: HEAVY}).drop(columns=name))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_a_number_is_refused(bad):
    frame = table({0.9: HEAVY})
    frame.loc[0, "score"] = bad
    with pytest.raises(ValueError, match="`score` is not a finite number in 1 of 3 rows"):
        optimal_epochs(frame)


@pytest.mark.parametrize("ratio, words", [(90, r"in \[0, 1\): got 90 \(percent"), (-0.2, "got -0.2$"), (1.0, "got 1$")])
def test_a_ratio_that_is_no_fraction_is_refused(ratio, words):
    frame = pd.DataFrame({"epoch": [1, 2], "ratio": ratio, "finetune_seed": 0, "score": [1.0, 2.0]})
    for function in (optimal_epochs, regime_boundary):
        with pytest.raises(ValueError, match=words):
            function(frame)


@pytest.mark.parametrize("name", ["dense_seed", "finetune_seed"])
def test_a_missing_seed_is_refused_and_not_dropped(name):
    frame = pd.DataFrame({"dense_seed": 0.0, "epoch": [1, 2], "ratio": 0.5, "finetune_seed": 0.0, "score": [1.0, 2.0]})
    frame.loc[1, name] = float("nan")
    with pytest.raises(ValueError, match=f"`{name}` is missing in 1 of 2 rows"):
        optimal_epochs(frame)


@pytest.mark.parametrize("function", [optimal_epochs, regime_boundary])
def test_several_settings_are_refused(function):
    frame = table({0.9: HEAVY})
    two = pd.concat([frame.assign(setting=label) for label in ("depth=8", "depth=20")])
    with pytest.raises(ValueError, match="groupby"):
        function(two)
    left = pd.concat([frame.assign(depth=depth) for depth in (8, 20)])
    with pytest.raises(ValueError, match="depth"):
        function(left[["depth", "dense_seed", "epoch", "ratio", "finetune_seed", "score"]])
    with pytest.raises(ValueError, match="several rows for the cell"):
        function(pd.concat([frame, frame]))


def test_setting_columns_stand_left_of_epoch():
    columns = ["setting", "dataset", "depth", "dense_seed", "epoch", "ratio", "finetune_seed", "score", "loss", "key"]
    assert setting_columns(pd.DataFrame(columns=columns)) == ["dataset", "depth"]


def test_the_boundary_lies_between_the_last_ratio_that_does_not_gain_and_the_first_that_does():
    frame = table({0.2: LIGHT, 0.8: (80.0, 85.4, 85.0), 0.9: (80.0, 85.5, 85.0), 0.95: HEAVY})
    line = regime_boundary(frame)
    assert (line.lower, line.upper, line.interval) == (0.8, 0.9, None)  # 0.4 is too little, 0.5 is enough
    assert line.gains.tolist() == pytest.approx([0.0, 0.4, 0.5, 6.0])
    assert regime_boundary(frame, min_gain=0.4).upper == 0.8


def test_a_boundary_outside_the_grid():
    none = regime_boundary(table({0.2: LIGHT, 0.5: LIGHT}))
    assert (none.lower, none.upper) == (0.5, None)
    everywhere = regime_boundary(table({0.2: HEAVY, 0.5: HEAVY}))
    assert (everywhere.lower, everywhere.upper) == (None, 0.2)
    with pytest.raises(ValueError, match="min_gain"):
        regime_boundary(table({0.2: LIGHT}), min_gain=0.0)


def test_the_interval_covers_what_the_seeds_disagree_on_and_nothing_when_they_agree():
    agree = regime_boundary(table({0.2: LIGHT, 0.9: HEAVY}, seeds=(0, 1, 2), noise=1.0))
    assert agree.interval == (0.9, 0.9) and agree.units == "finetune"
    gaining, flat = table({0.8: (80.0, 84.0, 80.0), 0.9: HEAVY}), table({0.8: (80.0, 80.0, 80.0), 0.9: HEAVY})
    frame = pd.concat([gaining, flat.assign(dense_seed=1)])
    line = regime_boundary(frame)
    assert line.units == "dense" and line.upper == 0.8  # the mean gains 2 points at 0.8
    assert line.interval == (0.8, 0.9)  # without the first seed, one draw in four, 0.8 gains nothing
    nowhere = regime_boundary(table({0.2: LIGHT}, seeds=(0, 1), noise=1.0))
    assert nowhere.interval == (1.0, 1.0)  # 1.0: beyond the grid


def test_the_interval_is_the_same_every_time():
    frame = pd.concat([table({0.8: (80.0, 84.0, 80.0 + d), 0.9: HEAVY}).assign(dense_seed=d) for d in range(5)])
    assert regime_boundary(frame).interval == regime_boundary(frame).interval


def test_the_input_is_left_alone():
    frame = table({0.2: LIGHT, 0.9: HEAVY}).drop(columns="dense_seed")
    before = frame.copy()
    optimal_epochs(frame), regime_boundary(frame), mean_grid(frame)
    pd.testing.assert_frame_equal(frame, before)
