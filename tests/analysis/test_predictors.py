"""Regret on grids small enough to check in the head, and on a published grid whose regrets are known."""

import math

import numpy as np
import pandas as pd
import pytest
from published_grid import CKA, ERROR, LMC, published, published_results

from twore.analysis import optimal_epochs, score_predictors
from twore.analysis.predictors import COLUMNS

EPOCHS = (10, 20, 30)
ROWS = {0.2: (80.0, 85.0, 90.0), 0.9: (60.0, 70.0, 64.0)}  # the last epoch is best, and loses 6 points


def table(rows=ROWS, seeds=(0,), dense=(0,), noise=0.0) -> pd.DataFrame:
    shift = {seed: noise * (i - (len(seeds) - 1) / 2) for i, seed in enumerate(seeds)}
    return pd.DataFrame([
        {"dense_seed": d, "epoch": epoch, "ratio": ratio, "finetune_seed": seed, "score": score + shift[seed]}
        for d in dense for ratio, scores in rows.items() for epoch, score in zip(EPOCHS, scores) for seed in seeds
    ])  # fmt: skip


def scored(frame: pd.DataFrame, picks: dict, **options) -> pd.DataFrame:
    return score_predictors(frame, picks, **options).set_index("predictor")


def test_regret_is_the_oracles_score_minus_that_of_the_pick():
    board = scored(table(), {"final": 30, "middle": 20, "first": 10})
    assert board["mean_regret"].tolist() == [3.0, 2.5, 10.0]
    assert board["heavy_regret"].tolist() == [6.0, 0.0, 10.0]
    assert board["worst_regret"].tolist() == [6.0, 5.0, 10.0]
    assert board["worst_ratio"].tolist() == [0.9, 0.2, 0.2]
    assert board["mean_score"].tolist() == [77.0, 77.5, 70.0]
    assert board["hits"].tolist() == [0.5, 0.5, 0.0]
    assert board["low_regret"].isna().all() and board["high_regret"].isna().all()  # one seed: no interval


def test_picks_are_epochs_mappings_or_functions_and_what_does_not_apply_is_left_out():
    picks = {
        "map": {0.2 + 4e-10: 30, 0.9 - 4e-10: 20},
        "numbers": {0.2: np.int64(30), 0.9: 20.0},
        "function": lambda results: results["epoch"].max(),
        "function of ratios": lambda results: optimal_epochs(results).set_index("ratio")["epoch"],
        "nothing": None,
        "no drop": lambda results: None,
        "not a number": lambda results: float("nan"),
    }
    board = scored(table(), picks)
    assert board.index.tolist() == ["map", "numbers", "function", "function of ratios"]
    assert board["mean_regret"].tolist() == [0.0, 0.0, 3.0, 0.0]
    empty = score_predictors(table(), {"no drop": None})
    assert empty.empty and list(empty.columns) == list(COLUMNS)


def test_several_epochs_are_scored_by_their_expectation():
    board = scored(table(), {"coin": (20, 30), "random": EPOCHS, "by ratio": {0.2: 30, 0.9: (20, 30)}})
    assert board["mean_regret"].tolist() == pytest.approx([2.75, (5 + 16 / 3) / 2, 1.5])
    assert board.loc["random", "normalised_regret"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        (15, "epoch 15; the results have 10, 20, 30"),
        ({0.2: 10}, "no epoch for ratio 0.9"),
        ({0.2: 10, 0.9: None}, "no epoch for ratio 0.9"),
        ({0.2: 10, 0.5: 10, 0.9: 10}, "ratio 0.5; the results have 0.2, 0.9"),
        ((), "give an epoch"),
        ("final", "picks .final. at ratio 0.2: give an epoch"),
    ],
)
def test_a_pick_that_cannot_be_scored_is_refused(pick, message):
    with pytest.raises(ValueError, match=message):
        score_predictors(table(), {"rule": pick})


def test_a_cell_that_was_not_run_cannot_be_picked():
    frame = table()
    frame = frame[~((frame["ratio"] == 0.9) & (frame["epoch"] == 30))]
    with pytest.raises(ValueError, match="epoch 30 at ratio 0.9, a cell not yet run"):
        score_predictors(frame, {"final": 30})
    assert scored(frame, {"by ratio": {0.2: 30, 0.9: 20}})["mean_regret"].tolist() == [0.0]


def test_heavy_ratios_are_those_at_or_beyond_the_boundary_unless_given():
    rows = {0.2: (80.0, 85.0, 90.0), 0.8: (70.0, 74.0, 74.0), 0.9: (60.0, 70.0, 69.5), 0.95: (50.0, 60.0, 60.0)}
    board = scored(table(rows), {"final": 30})
    assert board.loc["final", ["heavy_ratios", "heavy_regret"]].tolist() == [2, 0.25]  # 0.9 gains exactly 0.5
    assert scored(table(rows), {"final": 30}, heavy=(0.9 + 1e-10,)).loc["final", "heavy_regret"] == 0.5
    assert scored(table(rows), {"final": 30}, heavy=0.8).loc["final", "heavy_ratios"] == 3
    nowhere = scored(table({0.2: ROWS[0.2]}), {"final": 30, "first": 10})
    assert nowhere["heavy_regret"].isna().all() and (nowhere["heavy_ratios"] == 0).all()
    with pytest.raises(ValueError, match="heavy names ratio 0.5"):
        score_predictors(table(rows), {"final": 30}, heavy=[0.5])


def test_several_settings_are_refused():
    two = pd.concat([table().assign(setting=name) for name in "ab"])
    with pytest.raises(ValueError, match="several settings"):
        score_predictors(two, {"final": 30})


def test_the_oracle_is_the_best_epoch_of_the_mean_on_the_test_score_whatever_the_validation_says():
    frame = table().assign(valid_score=50.0)
    assert scored(frame, {"final": 30})["mean_regret"].tolist() == [3.0]
    first, second = table({0.9: (60.0, 70.0, 64.0)}), table({0.9: (60.0, 62.0, 80.0)}, dense=(1,))
    board = scored(pd.concat([first, second]), {"final": 30, "middle": 20})
    assert board["mean_regret"].tolist() == [0.0, 6.0]  # means 60, 66, 72


def test_the_oracle_of_the_other_dense_seeds_can_be_beaten():
    first, second = table({0.9: (60.0, 70.0, 64.0)}), table({0.9: (60.0, 62.0, 80.0)}, dense=(1,))
    frame = pd.concat([first, second])
    board = scored(frame, {"final": 30, "middle": 20}, oracle="others")
    # seed 0 with the best epoch of seed 1 (30) has 64, seed 1 with that of seed 0 (20) has 62: reference 63
    assert board["mean_regret"].tolist() == [63.0 - 72.0, 63.0 - 66.0]
    with pytest.raises(ValueError, match="two dense seeds"):
        score_predictors(first, {"final": 30}, oracle="others")
    with pytest.raises(ValueError, match="oracle is"):
        score_predictors(frame, {"final": 30}, oracle="best")


def test_the_interval_is_that_of_the_seeds_and_holds_the_regret():
    steady = scored(table(seeds=(0, 1, 2), noise=1.0), {"final": 30}).loc["final"]
    assert steady[["low_regret", "high_regret"]].tolist() == pytest.approx([3.0, 3.0])  # the same noise in every cell
    frames = [table({0.9: (60.0, 70.0, 70.0 - loss)}, dense=(d,)) for d, loss in enumerate((2.0, 4.0, 6.0, 8.0))]
    row = scored(pd.concat(frames), {"final": 30}).loc["final"]
    assert row["mean_regret"] == pytest.approx(5.0)
    assert 2.0 < row["low_regret"] < 4.0 and 6.0 < row["high_regret"] < 8.0


def test_ties_count_as_hits():
    noisy = table({0.9: (69.5, 70.0, 64.0)}, seeds=(0, 1, 2), noise=1.0)  # s.d. 1
    board = scored(noisy, {"first": 10, "final": 30, "random": EPOCHS})
    assert board["hits"].tolist() == pytest.approx([1.0, 0.0, 2 / 3])


def test_where_all_epochs_are_equal_nothing_is_lost_and_nothing_normalised():
    row = scored(table({0.2: (80.0, 80.0, 80.0)}), {"final": 30}).loc["final"]
    assert row["mean_regret"] == 0.0 and math.isnan(row["normalised_regret"])


def test_the_order_of_rows_and_the_labels_of_seeds_do_not_matter():
    frame = table(seeds=(0, 1, 2), dense=(0, 1), noise=1.0)
    frame["score"] += np.random.default_rng(0).normal(size=len(frame))
    picks = {"final": 30, "random": EPOCHS}
    plain = score_predictors(frame, picks)
    mixed = frame.sample(frac=1.0, random_state=1)
    pd.testing.assert_frame_equal(score_predictors(mixed, picks), plain)
    renamed = frame.assign(dense_seed=frame["dense_seed"] * 7 + 3, finetune_seed=frame["finetune_seed"] + 100)
    pd.testing.assert_frame_equal(score_predictors(renamed, picks), plain)
    before = frame.copy()
    score_predictors(frame, picks)
    pd.testing.assert_frame_equal(frame, before)


def best_of(block: str) -> dict[float, float]:
    """At each ratio the epoch where a published metric is largest, the earliest of ties."""
    rows = published(block)
    return {ratio: own.loc[own["value"].idxmax(), "epoch"] for ratio, own in rows.groupby("ratio")}


PICKS = {"final": 160, "epoch 80": 80, "largest CKA": best_of(CKA), "largest LMC": best_of(LMC),
         "random": tuple(range(10, 161, 10))}  # fmt: skip
HEAVY = (0.9, 0.92, 0.93, 0.94, 0.95)


def test_known_regrets_of_the_published_grid():
    board = scored(published_results(), PICKS)
    assert board["mean_regret"].tolist() == pytest.approx([1.51, 0.06, 0.17, 1.00, 0.87], abs=0.008)
    assert board["worst_regret"].tolist()[:4] == pytest.approx([3.22, 0.17, 0.56, 1.62], abs=0.015)
    assert board["heavy_regret"].tolist() == pytest.approx([2.57, 0.03, 0.27, 0.82, 1.25], abs=0.01)
    assert (board["heavy_ratios"] == len(HEAVY)).all()  # density 10 % and less: found, not given


def test_known_regrets_of_the_published_grid_from_the_coarser_figure():
    board = scored(published_results(ERROR), PICKS, heavy=HEAVY)
    assert board["mean_regret"].tolist() == pytest.approx([1.53, 0.06, 0.18, 1.02, 0.88], abs=0.008)
    assert board["worst_regret"].tolist()[:2] == pytest.approx([3.28, 0.18], abs=0.005)
    assert (board["heavy_ratios"] == 5).all()
    gain = optimal_epochs(published_results(ERROR), resamples=0).set_index("ratio")["gain"]
    assert gain.loc[0.86] == pytest.approx(0.51, abs=0.005)
