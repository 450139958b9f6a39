"""Picks that are far ahead of the final checkpoint: found where that foretells hits, stated, told, and read back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from probed import asked, calibration, many, piloted, probed

from twore.advise.ahead import best_line, beyond
from twore.advise.calibrating import calibrate
from twore.advise.calibration import Ahead, Calibration
from twore.advise.deciding import conclude, decide, see
from twore.advise.reliability_page import stated_now
from twore.advise.trials import collect, played

LINE = Ahead(points=3.0, hits=(0.4, 0.7), confidence=(0.35, 0.62), clusters=(8, 5))


def picks(hits: dict[float, list[int]], clusters: int = 4) -> pd.DataFrame:
    """A row for each lead and hit (0, 1), the same in each cluster."""
    rows = [(lead, hit) for lead, own in hits.items() for hit in own]
    return pd.concat([pd.DataFrame(rows, columns=["ahead", "hit"]).assign(cluster=c) for c in range(clusters)])


def test_the_line_is_where_hits_begin():
    rows = picks({0.0: [0, 0], 2.5: [0, 1, 0, 0], 4.0: [1, 1, 1], 8.0: [1]})
    assert best_line(rows, rows["hit"].mean(), fewest=3) == 3.0
    assert beyond(rows, 3.0).sum() == 4 * 4
    upside_down = rows.assign(hit=1 - rows["hit"])  # a pilot may be surer of the final checkpoint
    assert best_line(upside_down, upside_down["hit"].mean(), fewest=3) == 3.0


def test_no_line_where_a_lead_tells_nothing():
    rows = picks({0.0: [0, 1], 1.5: [0, 1], 4.0: [0, 1], 8.0: [0, 1]})
    assert best_line(rows, 0.5, fewest=3) is None
    luck = rows.assign(hit=np.random.default_rng(0).integers(0, 2, len(rows)))
    one = luck.assign(hit=np.where(luck["cluster"] == 0, luck["ahead"] > 3, 0.5))  # one cluster only speaks for it
    assert best_line(one, 0.5, fewest=3) is None


def test_each_side_of_a_line_needs_its_clusters():
    rows = picks({0.0: [0, 0], 4.0: [1, 1]})
    rows = rows[(rows["ahead"] == 0) | (rows["cluster"] < 2)]
    assert best_line(rows, 0.4, fewest=2) is not None and best_line(rows, 0.4, fewest=3) is None


def test_a_pick_without_the_final_checkpoint_beside_it_is_not_ahead():
    assert beyond(picks({np.nan: [1], 5.0: [1]}, clusters=1), 5.0).tolist() == [False, True]  # the line itself is


@pytest.mark.parametrize(("final", "stated", "settings", "words"), [
    (66.0, 0.62, 5, "5.3 points above the final one. Where pruning leaves the network broken like this and the pick "
     "leads the final checkpoint by 3 points or more, 70 %"),
    (70.0, 0.35, 8, "1.3 points above the final one. Where pruning leaves the network broken like this and the pick "
     "leads the final checkpoint by less than 3 points, 40 %"),
    (75.0, 0.35, 8, "the best of the shortlist. Where pruning leaves the network broken like this and the pick leads "
     "the final checkpoint by less than 3 points, 40 %"),
])  # fmt: skip
def test_the_confidence_is_that_of_its_side(final, stated, settings, words):
    told = calibration()
    about = told.levels["pilot of 3"]
    broken = replace(about.bands[0], ahead=LINE)
    told = replace(told, levels=told.levels | {"pilot of 3": replace(about, bands=(broken, *about.bands[1:]))})
    setting = probed(scores={0.5: (80.0,) * 6, 0.9: (60.0, 70.0, 71.3, 70.0, 60.0, final)}, spread=0.0)
    setting = piloted(setting, {0.5: [12, 24], 0.9: [8, 12, 24]})
    found = decide(setting, level="pilot", k=3, calibration=told)[1]
    assert found.confidence == stated and words in found.reason and not found.abstained
    assert found.settings == settings and f"({settings} independent settings)" in found.reason
    assert decide(asked(probed()), level="batches", calibration=told)[1].confidence == 0.4  # which leads nowhere


def test_it_is_calibrated_for_pilots_only_and_read_back():
    """Of each two settings one has a peak far ahead that holds, the other one a small lead by the luck of a seed."""
    trials = collect(many(6))
    lead = {f"setting {i}": 6.0 * (i % 2) for i in range(6)}
    nothing = [np.nan] * 2
    made = [
        replace(t, rows=t.rows.assign(hit=bool(lead[t.setting]), ahead=lead[t.setting] if t.k else nothing))
        for t in trials
    ]
    told = calibrate(made, fewest=3)
    ahead = told.level("pilot", 3).band_of(0.2).ahead
    assert ahead.points == 1.0 and ahead.hits == (0.0, 1.0) and ahead.clusters == (3, 3)
    assert ahead.confidence[0] < 0.3 < 0.7 < ahead.confidence[1]
    assert told.level("batches").band_of(0.2).ahead is None and told.level("weights").bands[0].ahead is None
    assert calibrate(made, fewest=4).level("pilot", 3).band_of(0.2).ahead is None  # three clusters a side
    assert Calibration.from_json(told.to_json()).level("pilot", 3).band_of(0.2).ahead.points == 1.0
    wrong = told.to_json().replace('"points"', '"marks"')
    with pytest.raises(ValueError, match="no calibration"):
        Calibration.from_json(wrong)
    old = json.loads(told.to_json())
    for level in old["levels"].values():
        for band in level["bands"]:
            del band["ahead"]  # of a file made before there were lines
    assert Calibration.from_json(json.dumps(old)).level("pilot", 3).band_of(0.2).ahead is None


def with_line(**changes) -> str:
    """A calibration file whose pilots of 3 have this line where the network is broken."""
    told = json.loads(calibration().to_json())
    line = {"points": 3.0, "hits": [0.4, 0.7], "confidence": [0.35, 0.62]}
    told["levels"]["pilot of 3"]["bands"][0]["ahead"] = line | changes
    return json.dumps(told)


def test_a_line_without_its_clusters_has_those_of_its_band():
    ahead = Calibration.from_json(with_line()).level("pilot", 3).band_of(0.2)
    assert ahead.ahead.clusters is None and ahead.behind(9.0) == ahead.behind(np.nan) == ahead.clusters == 4
    known = Calibration.from_json(with_line(clusters=[4, 3])).level("pilot", 3).band_of(0.2)
    assert (known.behind(0.0), known.behind(9.0), known.behind(np.nan)) == (4, 3, 4)
    assert (known.stated(np.float64(9.0)), known.share(np.float64(0.0))) == (0.62, 0.4)  # NumPy's, too


@pytest.mark.parametrize("changes", [
    {"points": "3"}, {"points": {}}, {"points": np.nan}, {"hits": [0.4]}, {"hits": [0.4, 0.5, 0.6]}, {"hits": 0.4},
    {"confidence": None}, {"confidence": ["a", "b"]}, {"confidence": [0.4, 7.0]}, {"clusters": 4},
    {"clusters": ["4", 3]}, {"marks": 1.0},
])  # fmt: skip
def test_a_line_of_the_wrong_kind_is_no_calibration(changes):
    assert Calibration.from_json(with_line())
    with pytest.raises(ValueError, match="no calibration of advice"):
        Calibration.from_json(with_line(**changes))


def test_the_lead_of_a_trial_is_that_of_its_verdict():
    trial = played(collect([probed()]), "pilot", 3)[0]
    assert trial.rows["ahead"].tolist() == pytest.approx([trial.seen.gains[ratio] for ratio in trial.rows["ratio"]])
    assert trial.rows["ahead"].iloc[1] == pytest.approx(16 / 3)  # 34 against 18, a third of it
    assert played(collect([probed()]), "batches")[0].rows["ahead"].isna().all()


def test_the_page_says_both():
    told = calibration()
    about = told.levels["pilot of 3"]
    bands = (
        replace(about.bands[0], ahead=LINE),
        replace(about.bands[1], ahead=replace(LINE, points=1.0)),
        about.bands[2],
    )
    told = replace(told, levels=told.levels | {"pilot of 3": replace(about, bands=bands)})
    assert stated_now(told, "batchnorm", "pilot of 3", "broken") == "35 %; 62 % from 3 points ahead"
    assert stated_now(told, "batchnorm", "pilot of 3", "damaged") == "35 %; 62 % from 1 point ahead"
    assert stated_now(told, "batchnorm", "pilot of 3", "intact") == "70 %"
    setting = piloted(probed(), {0.5: [24], 0.9: [12, 24]})
    assert conclude(see(setting, level="pilot", k=2), told)[1].confidence == 0.4  # the pilot of 2 has no line
