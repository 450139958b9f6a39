"""Optimal epochs against size and data, and the rational form, on tables with known answers."""

import math

import numpy as np
import pandas as pd
import pytest
from published_grid import ERROR, published_results

from twore.analysis import epoch_scaling, epoch_table, error_table, fit_pruning_law, optimal_epochs, rational_form

EPOCHS = np.arange(10, 161, 10)


def study(peaks: dict[tuple[int, int], int], *, seeds=(0,)) -> pd.DataFrame:
    """A row a cell: the score falls away on both sides of the setting's peak, the last epoch at ratio 0.5."""
    return pd.DataFrame([
        {"setting": f"depth={d} data={n}", "depth": d, "data": n, "epoch": e, "ratio": r, "finetune_seed": s,
         "score": 90.0 - abs(e - (peak if r == 0.9 else 160)) / 10}
        for (d, n), peak in peaks.items() for e in EPOCHS for r in (0.5, 0.9) for s in seeds
    ])  # fmt: skip


PEAKS = {(8, 10): 40, (16, 10): 80, (32, 10): 160, (8, 40): 20, (16, 40): 40, (32, 40): 80}  # 5 * depth, halved by data


def test_a_power_law_of_the_optimal_epoch_is_found():
    found = epoch_scaling(study(PEAKS), ("depth", "data")).set_index(["ratio", "column"])
    heavy = found.loc[0.9]
    assert heavy["slope"].tolist() == pytest.approx([1.0, -0.5])
    assert heavy["tau"].tolist() == pytest.approx([1.0, -1.0]) and heavy["groups"].tolist() == [2, 3]
    assert heavy["low"].tolist() == pytest.approx([1.0, -0.5]) and heavy["r2"].tolist() == pytest.approx([1.0, 1.0])
    light = found.loc[0.5]  # always the last epoch: no rank correlation, no slope, nothing explained
    assert light["tau"].isna().all() and light["slope"].tolist() == [0.0, 0.0] and light["r2"].isna().all()


def test_noise_widens_the_interval_around_the_slope():
    peaks = {(8, 10): 40, (16, 10): 60, (32, 10): 110, (64, 10): 160}
    row = epoch_scaling(study(peaks), ("depth", "data")).query("ratio == 0.9").iloc[0]
    x, y = np.log([8, 16, 32, 64]), np.log([40, 60, 110, 160])
    assert row["column"] == "depth" and row["slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
    assert row["low"] < row["slope"] < row["high"]
    two = epoch_scaling(study({(8, 10): 40, (16, 10): 80}), ("depth",)).query("ratio == 0.9").iloc[0]
    assert two["slope"] == pytest.approx(1.0) and math.isnan(two["low"])


def test_columns_that_vary_together_cannot_be_told_apart():
    found = epoch_scaling(study({(8, 8): 40, (16, 16): 80, (32, 32): 160}), ("depth", "data"))
    assert found["slope"].isna().all() and found["tau"].isna().all()


def test_bad_columns_are_refused():
    with pytest.raises(ValueError, match="no setting column `width`"):
        epoch_scaling(study(PEAKS), ("width",))
    with pytest.raises(ValueError, match="above 0"):
        epoch_scaling(study({(0, 1): 10, (8, 1): 20}), ("depth",))
    start = study({(8, 1): 10, (16, 1): 20}).assign(epoch=lambda t: t["epoch"] - 10)
    with pytest.raises(ValueError, match="epoch 0"):
        epoch_scaling(start, ("depth",))


def test_tables_by_setting():
    table = epoch_table(study(PEAKS))
    assert len(table) == 12 and table.columns[:4].tolist() == ["setting", "depth", "data", "ratio"]
    errors = error_table(study(PEAKS))
    first = errors[(errors["depth"] == 8) & (errors["data"] == 10)]
    assert first["error"].tolist() == [10.0, 22.0] and first["density"].tolist() == pytest.approx([0.5, 0.1])
    best = error_table(study(PEAKS), epoch="best")
    assert (best["error"] == 10.0).all()
    with pytest.raises(ValueError, match="final"):
        error_table(study(PEAKS), epoch="first")


def test_the_rational_form_has_two_plateaus_and_a_power_law_between():
    def form(m):
        return rational_form(np.array(m), 1.0, high=1000.0, gamma=2.0, p=0.1)

    assert form([1e6])[0] == pytest.approx(1.0, rel=1e-6) and form([1e-9])[0] == pytest.approx(1000.0)
    assert form([0.0])[0] == pytest.approx(1000.0)
    # |m - i p (h/e)^(1/gamma)| / |m - i p|, to the power gamma, in complex numbers
    m = np.array([0.01, 0.1, 0.4])
    direct = np.abs((m - 1j * 0.1 * 1000**0.5) / (m - 1j * 0.1)) ** 2
    assert form(m) == pytest.approx(direct)
    steep = rational_form(np.array([0.3, 0.6]), 1.0, high=1e12, gamma=2.0, p=0.001)
    assert np.diff(np.log(steep))[0] / np.log(2) == pytest.approx(-2.0, abs=1e-3)


def law_table(known=True, noise=0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for depth, dense in ((8, 20.0), (20, 12.0), (56, 8.0), (110, 7.0)):
        for density in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
            m = density * (depth / 31.53) ** 0.7
            error = rational_form(np.array([m]), dense, high=88.0, gamma=1.2, p=0.06)[0]
            rows.append({"setting": f"depth={depth}", "depth": depth, "density": density,
                         "error": error * np.exp(noise * rng.normal()), "dense_error": dense})  # fmt: skip
    return pd.DataFrame(rows).drop(columns=[] if known else "dense_error")


@pytest.mark.parametrize("known", [True, False])
def test_the_law_that_made_the_errors_is_recovered(known):
    law = fit_pruning_law(law_table(known), scale=("depth",), highest=90.0)
    assert (law.gamma, law.high) == (pytest.approx(1.2, rel=0.01), pytest.approx(88.0, rel=0.01))
    assert law.exponents["depth"] == pytest.approx(0.7, abs=0.01)
    assert law.residual < 1e-4 and law.loo < 1e-3 and law.measured_dense == known
    assert law.at_bounds == () and (law.points, law.settings) == (28, 4)
    new = pd.DataFrame({"depth": [38.0], "density": [0.05]})
    truth = rational_form(np.array([0.05 * (38 / 31.53) ** 0.7]), 10.0, high=88.0, gamma=1.2, p=0.06)
    assert law.predict(new, np.array([10.0])) == pytest.approx(truth, rel=0.01)


def test_noise_shows_in_the_residual_and_more_in_what_was_left_out():
    law = fit_pruning_law(law_table(noise=0.05).sample(frac=1.0, random_state=0), scale=("depth",))
    assert 0.01 < law.residual < 0.06 and law.residual < law.loo < 0.2


def test_an_ignored_size_is_paid_for():
    table = law_table()
    assert fit_pruning_law(table, highest=90.0).residual > 20 * fit_pruning_law(table, scale=("depth",)).residual


def test_the_law_of_the_published_grid():
    errors = error_table(published_results(ERROR))
    law = fit_pruning_law(errors, highest=90.0)
    assert law.residual < 0.03 and law.settings == 1 and "gamma" in law.at_bounds  # no plateau seen: gamma is not fixed
    best = fit_pruning_law(error_table(published_results(ERROR), epoch="best"), highest=90.0)
    assert best.residual < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="density"), "`density`"),
        (lambda t: t.assign(error=0.0), "above 0"),
        (lambda t: t.assign(error=95.0), "above highest=90"),
        (lambda t: t.head(2), "2 points cannot fix"),
    ],
)
def test_tables_that_cannot_be_fitted_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit_pruning_law(change(law_table()), highest=90.0)


def test_the_range_of_the_optimal_epoch_over_seeds():
    peak = {0: 40, 1: 80, 2: 120}
    frame = pd.concat([study({(8, 1): at}).assign(finetune_seed=seed) for seed, at in peak.items()])
    best = optimal_epochs(frame).set_index("ratio")
    assert (best.loc[0.9, "low_epoch"], best.loc[0.9, "epoch"], best.loc[0.9, "high_epoch"]) == (40, 80, 120)
    assert best.loc[0.5, ["low_epoch", "high_epoch"]].tolist() == [160, 160]
    alone = optimal_epochs(study({(8, 1): 40}))
    assert alone[["low_epoch", "high_epoch"]].isna().all(axis=None)
