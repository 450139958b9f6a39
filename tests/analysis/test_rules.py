"""Trivial rules, metric rules and pilots pick what one reads off the tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import EPOCHS, make_setting

from twore.analysis import (
    Predictor,
    budget_rule,
    fixed_pilot,
    full_grid_pilot,
    golden_section,
    rate_drop,
    shortlist_pilot,
    signal_rule,
    signal_rules,
    switched,
    trivial_rules,
)
from twore.analysis.evaluation import blind, trials
from twore.analysis.pilots import search_peak


def picked(name: str, setting) -> list | None:
    rule = next(rule for rule in trivial_rules() if rule.name == name)
    picks = rule.pick(blind(setting))
    return None if picks is None else list(picks.values())


def with_curve(rates: dict[int, float]):
    return replace(make_setting(), curves=pd.DataFrame({"epoch": list(rates), "lr": list(rates.values())}))


def test_trivial_rules():
    setting = make_setting(rates={16: 0.01, 20: 0.01})
    assert picked("final checkpoint", setting) == [20.0, 20.0]
    assert picked("25 % of the budget", setting) == [4.0, 4.0]  # of 20: 5, nearest 4
    assert picked("50 % of the budget", setting) == [8.0, 8.0]  # 10: 8 and 12 are equally near
    assert picked("best dense validation score", setting) == [16.0, 16.0]
    assert picked("last before the first rate drop", setting) == [12.0, 12.0]
    assert picked("random epoch", setting) == [EPOCHS, EPOCHS]
    assert all(rule.trivial and rule.cost == 0 for rule in trivial_rules())


def test_rules_without_their_table_do_not_apply():
    bare = replace(make_setting(), checkpoints=None, probes=None)
    assert picked("best dense validation score", bare) is None
    assert picked("last before the first rate drop", bare) is None
    assert signal_rule("metric", better="high").pick(bare) is None
    assert signal_rule("told", better="high", table="probes").pick(bare) is None
    assert signal_rule("nowhere", better="low").pick(make_setting()) is None


def test_the_first_drop_is_read_from_the_curve_to_the_epoch():
    step = with_curve({e: 0.1 if e <= 10 else 0.01 if e <= 15 else 0.001 for e in range(1, 21)})
    assert rate_drop(step) == 10.0
    assert picked("last before the first rate drop", step) == [8.0, 8.0]  # the last checkpoint that is not later
    soon = with_curve({e: 0.1 if e <= 2 else 0.01 for e in range(1, 21)})
    assert rate_drop(soon) == 2.0 and picked("last before the first rate drop", soon) is None  # no checkpoint yet


@pytest.mark.parametrize(
    "rate",
    [
        lambda e: 0.1,
        lambda e: 0.1 / e**0.5,  # falls by 29 % from epoch 1 to 2, and is no drop
        lambda e: 0.1 * e if e <= 4 else 0.8 / e**0.5,
        lambda e: 0.1 * (1 - e / 21),
        lambda e: 0.05 * (1 + np.cos(np.pi * e / 21)),
        lambda e: 0.1 * 0.7**e,
    ],
)
def test_smooth_schedules_have_no_drop(rate):
    assert rate_drop(with_curve({e: rate(e) for e in range(1, 21)})) is None


def test_metric_rules_follow_their_direction_and_take_the_earliest_tie():
    setting = make_setting()
    assert signal_rule("metric", better="high").pick(setting) == {0.5: 4.0, 0.9: 4.0}  # epoch 0 was not pruned
    assert signal_rule("metric", better="low").pick(setting) == {0.5: 20.0, 0.9: 20.0}
    assert signal_rule("told", better="high", table="probes").pick(setting) == {0.5: 20.0, 0.9: 8.0}
    flat = replace(setting, probes=setting.probes.assign(told=1.0))
    assert signal_rule("told", better="high", table="probes").pick(flat) == {0.5: 4.0, 0.9: 4.0}


def test_a_probe_must_know_every_ratio_but_not_every_epoch():
    setting = make_setting()
    probes = setting.probes
    rule = signal_rule("told", better="high", table="probes")
    assert rule.pick(replace(setting, probes=probes[probes["ratio"] == 0.5])) is None
    holes = probes.assign(told=probes["told"].where(probes["epoch"] != 8))
    assert rule.pick(replace(setting, probes=holes)) == {0.5: 20.0, 0.9: 12.0}


def test_a_metric_is_averaged_over_dense_seeds_and_neighbours():
    setting = make_setting(dense=(0, 1))
    probes = setting.probes.assign(told=0.0)
    probes.loc[(probes["dense_seed"] == 0) & (probes["epoch"] == 8), "told"] = 3.0
    probes.loc[(probes["dense_seed"] == 1) & (probes["epoch"] == 16), "told"] = 4.0
    probes.loc[(probes["dense_seed"] == 0) & (probes["epoch"] == 12), "told"] = 2.0
    setting = replace(setting, probes=probes)  # means: 0, 1.5, 1, 2, 0
    assert set(signal_rule("told", better="high", table="probes").pick(setting).values()) == {16.0}
    smooth = signal_rule("told", better="high", table="probes", window=3)
    assert smooth.signal(setting).iloc[0].tolist() == pytest.approx([0.75, 2.5 / 3, 1.5, 1.0, 1.0])
    assert set(smooth.pick(setting).values()) == {12.0}


def test_pair_metrics_use_the_row_of_the_mean():
    rows = [(e, r, pair, 9.0 if pair == "mean" and e == 12 else 10.0 * (pair != "mean"))
            for e in EPOCHS for r in (0.5, 0.9) for pair in ("0-1", "mean")]  # fmt: skip
    pairs = pd.DataFrame(rows, columns=["epoch", "ratio", "pair", "cka"])
    setting = replace(make_setting(), pairs=pairs)
    assert signal_rule("cka", better="high", table="pairs", needs="grid").pick(setting) == {0.5: 12.0, 0.9: 12.0}


def test_rules_are_made_for_the_columns_there_are():
    settings = [make_setting(), replace(make_setting("two"), probes=None)]
    names = [rule.name for rule in signal_rules(settings, {"told": ("high", "a few batches"), "gone": ("low", "grid")})]
    assert names == ["largest told"]


def test_a_switch_takes_the_final_checkpoint_where_it_still_scores():
    rule = switched(signal_rule("fooled", better="high", table="probes"), "told", threshold=80.0)
    assert rule.pick(make_setting()) == {0.5: 20.0, 0.9: 4.0}  # the final checkpoint has 90 and 64


@pytest.mark.parametrize("options", [{"better": "up"}, {"better": "low", "table": "x"}, {"better": "low", "window": 2}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError):
        signal_rule("metric", **options)
    with pytest.raises(ValueError, match="needs one of"):
        Predictor("x", "luck", lambda setting: None)
    with pytest.raises(ValueError):
        budget_rule(0.0)


def test_a_rule_without_fine_tuning_sees_no_score():
    seen = blind(make_setting())
    assert not {"score", "valid_score"} & set(seen.results.columns) and seen.pairs is None


def test_a_pilot_sees_one_seed_on_validation_and_is_scored_on_the_others():
    for seen, rest in trials(make_setting()):
        (seed,) = seen.results["finetune_seed"].unique()
        assert set(rest["finetune_seed"]) == {0, 1, 2} - {seed}
        assert seen.results["score"].max() == 85.0 and "valid_score" not in seen.results  # 90 - 5: validation
    assert len(list(trials(make_setting(valid=False)))) == 3
    ((seen, rest),) = trials(make_setting(seeds=(0,)))
    assert seen.results["score"].max() == 85.0 and rest["score"].max() == 90.0
    assert list(trials(make_setting(seeds=(0,), valid=False))) == []


def test_pilots_choose_among_the_cells_they_paid_for():
    setting = make_setting()
    pilot = fixed_pilot()  # nearest to 25 %, 50 % and 100 %: epochs 4, 8, 20
    assert pilot.pick(setting) == {0.5: 20.0, 0.9: 8.0}
    assert pilot.cost_of(setting) == pytest.approx(3 / 5 / 3)
    assert fixed_pilot((0.25, 1.0)).pick(setting) == {0.5: 20.0, 0.9: 20.0}
    assert full_grid_pilot().cost_of(setting) == pytest.approx(1 / 3)
    assert golden_section(4).cost_of(setting) == pytest.approx(4 / 5 / 3)


def test_a_shortlist_adds_the_final_checkpoint():
    setting = make_setting()
    pilot = shortlist_pilot(signal_rule("fooled", better="high", table="probes", needs="a few batches", cost=0.01))
    # 0.5: the two worst, 4 and 8, and 20; 0.9: 4 and 20 are the two worst
    assert pilot.pick(setting) == {0.5: 20.0, 0.9: 20.0}
    assert pilot.cost_of(setting) == pytest.approx((3 + 2) / 10 / 3 + 0.01)
    assert pilot.pick(replace(setting, probes=None)) is None
    with pytest.raises(ValueError, match="needs no fine-tuning"):
        shortlist_pilot(fixed_pilot())


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 16, 19])
def test_golden_section_finds_every_peak_with_enough_cells_and_never_looks_more_often(number):
    for peak in range(number):
        values = -np.abs(np.arange(number) - peak).astype(float)
        seen, best = search_peak(values, 8)
        assert best == peak and len(seen) <= 8 and len(set(seen)) == len(seen)
        assert len(search_peak(values, 3)[0]) <= 3
    assert search_peak(np.arange(16.0), 4) == ([5, 10, 11, 15], 15)
    assert search_peak(np.zeros(5), 5)[1] == min(search_peak(np.zeros(5), 5)[0])
