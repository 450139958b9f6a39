"""Our own predictors on grids whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from twore.analysis import default_predictors, score_settings
from twore.analysis.candidates import (
    candidates,
    fallback_probe,
    ranked_probe,
    smooth_probe,
    smooth_readout,
    tuned_probe,
)
from twore.analysis.settings import SettingTables
from twore.analysis.spared import kept, spared_pilot

EPOCHS, RATIOS = (1, 2, 3, 4, 5), (0.5, 0.9, 0.95)


def setting(name, probe, *, best=None, cost=0.1):
    """probe: (R, E) recalibrated scores. best: (R,) epochs at which the fine-tuned score peaks."""
    best = best or (5, 3, 2)
    rows = [
        {"setting": name, "epoch": e, "ratio": r, "finetune_seed": seed, "score": 90.0 - 2 * abs(e - peak)}
        for r, peak in zip(RATIOS, best)
        for e in EPOCHS
        for seed in (0, 1)
    ]
    probes = [
        {"setting": name, "epoch": e, "ratio": r, "recalibrated_score": value, "cost": cost}
        for r, values in zip(RATIOS, probe)
        for e, value in zip(EPOCHS, values)
    ]
    return SettingTables(name, pd.DataFrame(rows), probes=pd.DataFrame(probes), cluster=name)


SPIKE = ([1, 2, 3, 4, 5], [0, 5, 6, 5, 9], [4, 5, 4, 0, 0])  # at 0.9 a lone spike at the end hides the plateau at 3


def test_averaging_over_checkpoints_passes_over_a_lone_spike():
    one = setting("a", SPIKE)
    assert smooth_probe(window=1).pick(one)[0.9] == 5
    # means of up to three: (2.5, 3.67, 5.33, 6.67, 7) at 0.9 would still pick the end; the middle wins without it
    assert smooth_probe().pick(setting("b", (SPIKE[0], [0, 5, 6, 5, 5], SPIKE[2])))[0.9] == 3


def test_ranks_are_averaged_over_neighbouring_ratios():
    grid = ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [5, 4, 3, 2, 1])
    picks = ranked_probe().pick(setting("a", grid))
    assert picks[0.95] == 1  # both its rows fall
    assert picks[0.5] == 1  # mean ranks of the first two rows are all 3: the earliest of exact ties


def test_what_the_probes_cost_is_said():
    one = setting("a", SPIKE, cost=0.1)
    assert smooth_probe().cost_of(one) == pytest.approx(0.1 * 15 / 30)  # 15 probes, 30 cells


def test_the_tuned_one_learns_from_the_other_settings_only():
    late = ([0, 0, 0, 0, 9],) * 3  # points to the end, rightly in b and c, wrongly in a
    trap = setting("a", late, best=(1, 1, 1))
    others = [setting(name, late, best=(5, 5, 5)) for name in ("b", "c")]
    settings = [trap, *others]
    rows = score_settings(settings, [tuned_probe(settings)]).set_index("setting")
    assert rows.loc[["b", "c"], "mean_regret"].tolist() == [0.0, 0.0]
    assert rows.loc["a", "mean_regret"] == pytest.approx(8.0)


def test_they_stand_on_the_board_where_there_are_probes():
    with_probes = [setting(name, SPIKE) for name in ("a", "b")]
    names = {rule.name for rule in default_predictors(with_probes)}
    assert {rule.name for rule in candidates(with_probes)} <= names
    assert "probe tuned on the other settings" in names
    without = [SettingTables(s.name, s.results, cluster=s.name) for s in with_probes]
    assert candidates(without) == []


def test_one_setting_has_no_tuned_rule():
    assert "probe tuned on the other settings" not in {rule.name for rule in candidates([setting("a", SPIKE)])}


def test_a_pilot_is_spared_where_pruning_breaks_nothing():
    """At 0.9 the final checkpoint keeps 3 of 9, at 0.95 6 of 9: only the first is fine-tuned, and peaks at 3."""
    one = setting("a", ([9, 9, 9, 9, 9], [5, 6, 7, 4, 3], [9, 9, 9, 7, 6]), best=(1, 3, 1))
    seen = SettingTables("a", one.results.query("finetune_seed == 0"), probes=one.probes)
    assert spared_pilot().pick(seen) == {0.5: 5.0, 0.9: 3.0, 0.95: 5.0}
    assert spared_pilot().cost_of(one) == pytest.approx((4 + 15 * 0.1) / 30)  # 4 cells and 15 probes of 30 cells
    assert spared_pilot().pick(SettingTables("a", one.results)) is None


def test_what_is_kept_is_a_share_of_the_same_checkpoint():
    """A checkpoint that was probed and has no cells yet is not the final one."""
    one = setting("a", ([9, 9, 9, 9, 9], [5, 6, 7, 4, 3], [9, 9, 9, 7, 6]))
    later = pd.DataFrame({"setting": "a", "epoch": 6, "ratio": RATIOS, "recalibrated_score": 90.0, "cost": 0.1})
    more = replace(one, probes=pd.concat([one.probes, later]))
    assert kept(more) == kept(one) == pytest.approx({0.5: 1.0, 0.9: 3 / 9, 0.95: 6 / 9})


def test_of_a_final_checkpoint_that_scores_nothing_no_share_is_kept():
    one = setting("a", ([9, 9, 9, 9, 0],) * 3)
    assert kept(one) is None
    assert spared_pilot().pick(one) is None
    assert np.isnan(spared_pilot().cost_of(one))


def read_out(one, readout, *, chance=10.0, cost=0.15):
    """The setting with read-out scores (R, E) in its probes."""
    flat = [value for row in readout for value in row]
    return SettingTables(
        one.name,
        one.results,
        probes=one.probes.assign(readout_score=flat, chance=chance, readout_cost=cost),
        cluster=one.name,
    )


def test_the_read_out_speaks_where_the_score_is_at_chance():
    """Chance is 10: at 0.95 no checkpoint reaches 20, at 0.9 one does."""
    score = ([90, 91, 92, 93, 94], [9, 9, 9, 20, 9], [19, 11, 9, 9, 9])
    one = read_out(setting("a", score), ([5, 4, 3, 2, 1], [5, 4, 3, 2, 1], [30, 40, 60, 50, 50]))
    assert fallback_probe().pick(one) == {0.5: 5.0, 0.9: 4.0, 0.95: 3.0}
    assert fallback_probe().cost_of(one) == pytest.approx(15 * 0.15 / 30)
    assert smooth_readout().pick(one)[0.95] == 4.0  # means 35, 43.3, 50, 53.3, 50


def test_of_two_classes_the_line_is_half_way_to_perfect():
    """Chance is 50: twice that no score passes, so the read-out would speak everywhere."""
    score = ([90, 91, 92, 93, 94], [50, 50, 80, 50, 50], [50, 60, 74, 60, 50])
    one = read_out(setting("a", score), ([99, 4, 3, 2, 1],) * 3, chance=50.0)
    assert fallback_probe().pick(one) == {0.5: 5.0, 0.9: 3.0, 0.95: 1.0}


def test_read_outs_are_on_the_board_where_they_were_measured():
    plain = setting("a", SPIKE)
    assert fallback_probe().pick(plain) is None
    assert not [rule.name for rule in default_predictors([plain]) if "readout" in rule.name]
    rules = {rule.name: rule for rule in default_predictors([read_out(plain, SPIKE)])}
    assert fallback_probe().name in rules
    assert rules["largest readout_score"].cost_of(read_out(plain, SPIKE)) == pytest.approx(15 * 0.15 / 30)


def test_nothing_is_chosen_by_fine_tuned_scores():
    one = setting("a", SPIKE)
    shuffled = one.results.assign(score=np.random.default_rng(0).permutation(one.results["score"]))
    other = SettingTables("a", shuffled, probes=one.probes, cluster="a")
    for rule in (smooth_probe(), ranked_probe()):
        assert rule.pick(one) == rule.pick(other)
