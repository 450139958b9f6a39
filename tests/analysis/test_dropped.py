"""The predictors that are kept as rows only, on grids whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_candidates import EPOCHS, RATIOS, SPIKE, setting

from twore.analysis import default_predictors
from twore.analysis.candidates import smooth_probe
from twore.analysis.dropped import both_probes, dropped, outer_pilot, search_from, search_from_peak, tuned_switch
from twore.analysis.pilots import shortlisted


def test_a_search_from_the_peak_looks_around_it_and_stays_if_it_is_right():
    values = np.array([1.0, 2, 3, 9, 3, 2, 1, 0])
    seen, best = search_from(values, 4, 3)
    assert (best, seen[0], len(seen)) == (3, 3, 4)


@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("peak", range(8))
def test_with_cells_enough_a_single_peak_is_found_from_anywhere(start, peak):
    values = -np.abs(np.arange(8.0) - peak)
    seen, best = search_from(values, 8, start)
    assert best == peak
    assert len(seen) == len(set(seen)) <= 8


@pytest.mark.parametrize("start", range(5))
def test_it_never_looks_at_more_cells_than_asked(start):
    rng = np.random.default_rng(0)
    for _ in range(20):
        seen, best = search_from(rng.normal(size=5), 3, start)
        assert len(seen) <= 3
        assert best in seen


def test_the_search_is_played_on_the_grid_and_pays_for_its_signal():
    one = setting("a", SPIKE, best=(5, 3, 2))
    pilot = search_from_peak(smooth_probe(window=1))
    seen = replace(one, results=one.results.query("finetune_seed == 0"))
    assert pilot.pick(seen) == {0.5: 5.0, 0.9: 3.0, 0.95: 2.0}
    assert pilot.cost_of(one) == pytest.approx((4 * len(RATIOS) + 15 * 0.1) / 30)
    assert pilot.pick(replace(one, probes=None)) is None


def test_a_shortlist_of_strangers_has_no_neighbours():
    one = setting("a", ([1, 2, 3, 9, 8], [9, 8, 7, 1, 1], [1, 1, 9, 8, 7]))
    lists = shortlisted(smooth_probe(window=1), best=2, final=False, apart=2)(one)
    assert lists == {0.5: [2.0, 4.0], 0.9: [1.0, 3.0], 0.95: [3.0, 5.0]}


def test_ratios_between_take_the_pick_of_the_nearer_end():
    one = setting("a", ([9, 8, 7, 6, 5], [9, 8, 7, 6, 5], [9, 8, 7, 6, 5]), best=(2, 1, 4))
    assert outer_pilot().pick(one) == {0.5: 5.0, 0.9: 5.0, 0.95: 5.0}  # at 0.5 it keeps all, being the lightest ratio
    whole = pd.DataFrame([{"setting": "a", "epoch": 5, "ratio": 0.0, "recalibrated_score": 50.0, "cost": 0.0}])
    all_broken = replace(one, probes=pd.concat([one.probes, whole]))
    assert outer_pilot().pick(all_broken) == {0.5: 2.0, 0.9: 3.0, 0.95: 3.0}  # its own would be 1; 4 is in no shortlist
    assert outer_pilot().cost_of(all_broken) == pytest.approx((2 * 4 + 15 * 0.1) / 30)
    last = ([9, 8, 7, 6, 5], [9, 8, 7, 6, 5], [9, 8, 7, 6, 4.9])
    only = replace(all_broken, probes=pd.concat([setting("a", last).probes, whole.assign(recalibrated_score=9.9)]))
    assert outer_pilot().pick(only) == {0.5: 5.0, 0.9: 5.0, 0.95: 3.0}
    assert outer_pilot().cost_of(only) == pytest.approx((4 + 15 * 0.1) / 30)
    assert outer_pilot().pick(replace(one, probes=None)) is None


def test_the_two_probes_are_averaged_as_values_or_as_ranks():
    one = setting("a", ([1, 2, 30, 4, 5],) * 3)
    averaged = [5, 1, 2, 30, 3] * len(RATIOS)
    both = replace(one, probes=one.probes.assign(average_recalibrated_score=averaged))
    assert both_probes().pick(both)[0.9] == 4.0  # 34 / 2 against 32 / 2
    assert both_probes(ranks=True).pick(both)[0.9] == 4.0  # ranks 3, 5 against 5, 2
    assert both_probes().cost_of(both) == pytest.approx(2 * 15 * 0.1 / 30)
    assert both_probes().pick(one) is None


def test_the_switch_is_learnt_elsewhere():
    """In b and c a score of 80 is enough for the final checkpoint to be best; nothing of a has part in that."""
    late = ([95, 90, 85, 80, 80],) * 3
    settings = [setting(name, late, best=(5, 5, 5)) for name in ("b", "c")] + [setting("a", late, best=(1, 1, 1))]
    assert tuned_switch(settings).pick(settings[2]) == dict.fromkeys(RATIOS, float(EPOCHS[-1]))


def test_they_stand_on_the_board():
    settings = [setting(name, SPIKE) for name in ("a", "b")]
    assert {rule.name for rule in dropped(settings)} <= {rule.name for rule in default_predictors(settings)}
    assert dropped([replace(one, probes=None) for one in settings]) == []
