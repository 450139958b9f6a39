"""Verdicts on made-up settings: the answer, and each reason to abstain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from probed import HEAVY, LIGHT, asked, calibration, piloted, probed

from twore.advise.deciding import conclude, decide, see
from twore.advise.kinds import MIXED
from twore.advise.levels import shortlist


def verdict(heavy=HEAVY, *, level="batches", light=LIGHT, told=None, kind=None, **changes):
    """The verdict on ratio 0.9."""
    setting = probed(probes={0.5: light, 0.9: heavy})
    if level == "pilot":
        setting = piloted(setting, shortlist(asked(setting)))
    else:
        setting = asked(setting)
    return decide(setting, level=level, calibration=told or calibration(**changes), kind=kind)[-1]


def test_an_answer():
    found = verdict()
    assert (found.ratio, found.epoch, found.abstained, found.doubt) == (0.9, 12.0, False, None)
    assert found.confidence == 0.4 and found.settings == 4 and found.expected_regret == (0.5, 0.1, 1.0)
    assert found.regime == "stop early"  # keeps 18 of 98.2
    assert found.interval == (8.0, 16.0)  # within half of 34 - 18 of the peak
    assert "checkpoint 12" not in found.reason  # a position, while the checkpoint may be called checkpoint-900
    assert "34 % right" in found.reason and "18 %" in found.reason and "50 % of such picks" in found.reason
    assert "pilot" in found.would_change and "10 %" in found.would_change


def test_ratios_ascend_and_light_pruning_says_train_on():
    both = decide(asked(probed()), level="batches", calibration=calibration())
    assert [v.ratio for v in both] == [0.5, 0.9]
    assert both[0].epoch == 24.0 and both[0].regime == "train on" and both[0].confidence == pytest.approx(0.7)


def test_weights_alone_abstain_and_hand_out_the_rules_of_thumb():
    found = verdict(level="weights")
    assert found.abstained and found.doubt == "no skill" and found.epoch == 24.0 and found.regime is None
    assert found.trivial_rules["final checkpoint"] == 24.0 and "rules of thumb" in found.reason


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("outside", {"ratios": (0.3, 0.85)}),
        ("outside", {"ratios": (0.92, 0.97)}),
        ("outside", {"checkpoints": (13, 14)}),  # six are less than half
        ("outside", {"checkpoints": (2, 2)}),  # six are more than twice as many
        ("no skill", {"skill": (0.2, -0.01, 0.5)}),
        ("outside", {"bands": calibration().levels["batches"].bands[1:]}),  # nothing known of broken networks
    ],
)
def test_nothing_is_claimed_beyond_the_calibration(why, changes):
    found = verdict(**changes)
    assert found.abstained and found.doubt == why and found.reason.endswith(".")
    assert found.trivial_rules and found.epoch == 12.0
    if why == "outside":  # the band's numbers are of other cases
        assert (found.confidence, found.expected_regret, found.settings, found.regime) == (0.0, None, 0, None)
        assert found.interval == (4.0, 24.0)


@pytest.mark.parametrize("level", ["batches", "pilot"])
def test_half_as_many_checkpoints_as_calibrated_are_answered_and_no_more_of_them(level):
    assert not verdict(checkpoints=(12, 14), level=level).abstained
    assert not verdict(checkpoints=(3, 6), level=level).abstained
    for checkpoints, way_out in (((3, 5), "name fewer"), ((13, 14), "save more")):
        found = verdict(checkpoints=checkpoints, level=level)
        assert found.doubt == "outside" and way_out in found.reason


def test_another_way_of_repair_is_outside():
    assert not verdict(kind="batchnorm").abstained
    assert verdict(kind="outputs").doubt == "outside"


def test_a_better_rule_of_thumb_is_named():
    bands = calibration().levels["batches"].bands
    worse = (replace(bands[0], regret=(2.2, 1.0, 3.0)), *bands[1:])
    found = verdict(bands=worse)  # 0.2 points worse than the final checkpoint
    assert found.confidence == 0.4 and found.expected_regret[0] == 2.2
    assert found.doubt == "a rule of thumb is better" and "'final checkpoint'" in found.reason
    as_good = (replace(bands[0], regret=(2.05, 1.0, 3.0)), *bands[1:])
    assert not verdict(bands=as_good).abstained


def test_a_next_level_that_gains_nothing_is_not_recommended():
    told = calibration()
    assert "hardly worth" in verdict(told=told).would_change  # the pilot of the same numbers
    better = replace(told.levels["batches"], bands=(replace(told.levels["batches"].bands[0], regret=(0.3, 0.1, 1.0)),))
    told = replace(told, levels=told.levels | {"pilot of 3": better})
    assert "loses 0.3 points in the mean where this loses 0.5" in (said := verdict(told=told).would_change)
    assert "hardly" not in said


def test_still_moving():
    found = verdict((10.0, 14.0, 18.0, 22.0, 26.0, 30.0))
    assert found.doubt == "still moving" and "train on and ask again" in found.reason and found.epoch == 24.0
    assert not verdict((10.0, 26.0, 28.0, 29.0, 29.4, 29.5)).abstained  # settles: the final one is the answer


def test_flat():
    found = verdict((30.0, 31.0, 30.0, 31.0, 30.0, 31.0))
    assert found.doubt == "flat" and found.confidence == 0 and found.expected_regret is None  # known of clear ones only
    assert verdict((30.0,) * 6).doubt == "flat"  # without any noise too


def test_noisier_than_its_peak():
    seen = see(asked(probed()), level="batches")
    dip = replace(seen.shapes[0.9], signal=np.array([29.0, 29.0, 30.0, 20.0, 29.0, 29.0]))  # 1 above all but the dip

    def doubt(noise):
        shapes = seen.shapes | {0.9: replace(dip, noise=noise)}
        return conclude(replace(seen, shapes=shapes), calibration())[-1].doubt

    assert (doubt(0.5), doubt(2.0), doubt(6.0)) == (None, "noisier than its peak", "flat")  # six range over 2.5 x noise


def test_a_score_that_is_no_percentage_is_outside():
    found = verdict(tuple(-x for x in HEAVY), light=tuple(-x for x in LIGHT))
    assert found.doubt == "outside" and "percent" in found.reason
    share = verdict(tuple(x / 100 for x in HEAVY), light=tuple(x / 100 for x in LIGHT))
    assert share.doubt == "outside" and "let the score be a percentage" in share.reason
    assert verdict((20.0, 140.0, 190.0, 130.0, 22.0, 18.0)).doubt == "outside"  # more than unpruned


def test_no_evidence():
    setting = asked(probed())
    one = replace(setting, probes=setting.probes.query("epoch == 24"), results=setting.results.query("epoch == 24"))
    assert decide(one, level="batches", calibration=calibration())[0].doubt == "no evidence"
    bare = decide(replace(setting, probes=None), level="batches", calibration=calibration())
    assert [(v.doubt, v.epoch, v.confidence) for v in bare] == [("no evidence", None, 0.0)] * 2
    assert bare[0].interval == (4.0, 24.0)  # anywhere


def test_nothing_calibrated():
    empty = replace(calibration(), levels={})
    assert verdict(told=empty).doubt == "not calibrated"
    found = verdict(told=replace(empty, levels={"pilot of 4": calibration().levels["batches"]}), level="pilot")
    assert found.doubt == "not calibrated"  # a pilot of 3 claims nothing from one of 4


def test_a_pilot_answers_where_the_signal_is_flat():
    flat = (30.0, 31.0, 30.0, 31.0, 30.0, 31.0)
    assert verdict(flat).doubt == "flat"
    found = verdict(flat, level="pilot")
    assert not found.abstained and "Fine-tuned" in found.reason


def test_a_pilots_gain_decides_what_the_signal_leaves_open():
    def regime(gain, keeps):
        setting = probed(
            probes={0.5: LIGHT, 0.9: (*HEAVY[:5], keeps)}, scores={0.5: (80.0,) * 6, 0.9: (1, 1, 80 + gain, 1, 1, 80)}
        )
        cells = piloted(setting, shortlist(asked(setting)))
        return decide(cells, level="pilot", calibration=calibration(stop_below=0.2, train_from=0.6))[-1].regime

    assert regime(0.0, 30.0) == "train on"
    assert regime(0.7, 30.0) == "either"
    assert regime(1.5, 30.0) == "stop early"
    assert regime(1.5, 70.0) == "either"  # it keeps 70 of 98, which speaks for training on
    assert regime(0.0, 5.0) == "either"  # it keeps 5 of 98, which speaks for stopping early


def test_a_pilot_that_is_not_run_yet():
    setting = probed()
    other = piloted(setting, {0.5: [4.0, 12.0, 24.0], 0.9: [4.0]})  # at 0.9 that is none of the shortlist
    found = decide(other, level="pilot", k=2, calibration=calibration())
    assert all(v.doubt == "no evidence" and v.epoch is None and v.confidence == 0 for v in found)


def test_a_pilot_with_a_missing_cell_claims_nothing():
    """Its pick was compared with fewer than the calibration's picks were."""
    setting = probed()
    cells = shortlist(asked(setting))
    whole = decide(piloted(setting, cells), level="pilot", calibration=calibration())
    assert not any(v.abstained for v in whole)
    fewer = cells | {0.9: [epoch for epoch in cells[0.9] if epoch != 24.0]}
    light, heavy = decide(piloted(setting, fewer), level="pilot", calibration=calibration())
    assert not light.abstained and heavy.epoch == 12.0
    assert (heavy.doubt, heavy.confidence, heavy.expected_regret) == ("no evidence", 0.0, None)
    assert "1 missing" in heavy.reason and "to its end" in heavy.reason
    broken, *others = calibration().levels["pilot of 3"].bands
    told = calibration(bands=(replace(broken, regret=(2.2, 1.0, 3.0)), *others))  # where a rule of thumb is better, too
    whole, heavy = (decide(piloted(setting, own), level="pilot", calibration=told)[1] for own in (cells, fewer))
    assert whole.doubt == heavy.doubt == "a rule of thumb is better"
    assert (whole.confidence, heavy.confidence, heavy.expected_regret) == (0.4, 0.0, None)


def test_the_level_that_has_no_skill_is_not_the_next_one():
    told = calibration()
    assert "few batches, to score" in verdict(level="weights", told=told).would_change
    dull = replace(told.levels["batches"], skill=(0.1, -0.1, 0.3))
    told = replace(told, levels=told.levels | {"batches": dull})
    found = verdict(level="weights", told=told).would_change
    assert "a pilot of 3, since a few batches tell nothing" in found
    assert "or a pilot where that answers" in verdict(told=told).reason
    small = replace(told, levels=told.levels | {"pilot of 3": dull})
    assert "or a larger one where that answers" in verdict(told=small, level="pilot").reason


def test_no_numbers_of_other_networks_are_promised_to_an_unknown_kind():
    found = verdict(kind=MIXED)
    assert found.doubt == "outside" and "fine-tune two or three" in found.would_change
    assert "with BatchNorm beside other norms" in found.reason and "%" not in found.would_change
    assert "%" in verdict(kind="batchnorm").would_change
    unmeasured = replace(asked(probed()), checkpoints=probed().checkpoints.drop(columns="powerlaw_alpha"))
    (_, bare) = decide(unmeasured, level="weights", calibration=calibration(), kind="another")
    assert bare.doubt == "no evidence"
    for said in (verdict(kind="another", level="weights").would_change, bare.would_change):
        assert said.startswith("A few batches would not answer here. Networks with another were never")
    (_, bare) = decide(unmeasured, level="weights", calibration=calibration(), kind="batchnorm")
    assert bare.would_change.startswith("Next: a few batches")
    dull = replace(calibration().levels["batches"], skill=(0.1, -0.1, 0.3))  # of whichever kind comes first
    told = replace(calibration(), levels=calibration().levels | {"batches": dull})
    assert verdict(kind="another", told=told).doubt == "outside"


@pytest.mark.parametrize(("final", "words"), [
    (66.0, "the best of the shortlist, 5.3 points above the final one there. Where"),
    (75.0, "the best of the shortlist. Where"),  # it is the final one
])  # fmt: skip
def test_a_pilot_says_by_how_much_its_pick_won(final, words):
    setting = probed(scores={0.5: (80.0,) * 6, 0.9: (60.0, 70.0, 71.3, 70.0, 60.0, final)}, spread=0.0)
    setting = piloted(setting, {0.5: [12, 24], 0.9: [8, 12, 24]})
    found = decide(setting, level="pilot", k=3, calibration=calibration())[1]
    assert f"Fine-tuned, the advised checkpoint is {words}" in found.reason and found.confidence == 0.4


def test_a_pilot_that_would_not_answer_is_not_recommended():
    told = calibration()
    pilot = told.levels["pilot of 3"]

    def said(level="batches", **changes):
        own = replace(told, levels=told.levels | {"pilot of 3": replace(pilot, **changes)})
        return verdict(level=level, told=own, kind="batchnorm").would_change

    assert said().startswith("Next: a pilot that fine-tunes 3")
    assert "A pilot of 3 would not answer here. 6 checkpoints are outside the 2 to 4" in said(checkpoints=(4, 4))
    assert "Ratio 0.9 lies outside" in said(ratios=(0.3, 0.8))
    assert "keeps 18 % of its score, for which too few" in said(bands=pilot.bands[1:])
    assert "does not clearly beat" in said(skill=(0.1, -0.1, 0.3))
    worse = replace(pilot.bands[0], regret=(2.2, 1.0, 3.0))
    assert "would not answer here" in said(bands=(worse, *pilot.bands[1:]))
    few = replace(told.levels["batches"], checkpoints=(3, 5))
    own = replace(told, levels=told.levels | {"batches": few})
    assert "A few batches would not answer here. 6 check" in verdict(level="weights", told=own).would_change


def test_a_larger_pilot_is_next_until_there_is_none():
    told = calibration()
    assert verdict(level="pilot").would_change.startswith("A second dense run")
    told = replace(told, levels=told.levels | {"pilot of 4": told.levels["pilot of 3"]})
    assert "a pilot of 4 instead of 3" in verdict(level="pilot", told=told).would_change


def test_whoever_ran_a_pilot_is_not_told_to_fine_tune():
    for changes in ({"ratios": (0.3, 0.85)}, {"bands": calibration().levels["batches"].bands[1:]}, {"kind": MIXED}):
        found = verdict(level="pilot", **changes)
        assert found.doubt == "outside" and "fine-tune two" not in found.reason + found.would_change
        assert "compare the scores of the fine-tuned" in found.reason and found.would_change.startswith("Next: compare")
        assert "fine-tune two" in verdict(**changes).reason


def test_what_the_next_level_loses_is_told_of_the_same_band():
    """Without a band of its own level (an unclear signal), and in the mean only where nothing is known of it."""
    told = calibration()  # whose bands have equally many pairs
    assert "loses 0.5 points in the mean where pruning leaves the network broken" in verdict((30.0,) * 6).would_change
    bands = told.levels["batches"].bands
    lost = [replace(band, regret=(mean, 0.0, 9.0)) for band, mean in zip(bands, (0.5, 1.5, 7.0))]  # no answer at 7
    told = replace(told, levels=told.levels | {"batches": replace(told.levels["batches"], bands=tuple(lost))})
    assert "loses 1.0 points in the mean where it answers" in verdict(level="weights", told=told).would_change


def test_scores_below_the_pilot_are_not_read():
    setting = probed()
    lies = replace(setting, results=setting.results.assign(score=np.arange(len(setting.results))[::-1]))
    for level in ("weights", "batches"):
        assert decide(lies, level=level, calibration=calibration()) == decide(
            asked(setting), level=level, calibration=calibration()
        )
