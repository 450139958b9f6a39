"""Calibration: its file, its numbers on settings whose answer is known, and its reliability on those left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from probed import EPOCHS, calibration, many, probed

from twore.advise.calibrating import balanced_accuracy, calibrate, main
from twore.advise.calibration import Calibration, shipped
from twore.advise.deciding import conclude
from twore.advise.reliability import left_out, reliability
from twore.advise.reliability_page import stated_now, warnings_of
from twore.advise.trials import NAMED, collect, played


@pytest.fixture(scope="module")
def trials():
    return collect(many())


def test_json_there_and_back():
    told = calibration()
    assert Calibration.from_json(told.to_json()) == told
    with pytest.raises(ValueError, match="no calibration"):
        Calibration.from_json("{}")
    with pytest.raises(ValueError, match="no calibration"):
        Calibration.from_json(told.to_json().replace('"hits"', '"luck"'))
    for odd in ('"x"', "1.5", "null"):
        with pytest.raises(ValueError, match="no calibration.*hits, confidence"):
            Calibration.from_json(told.to_json().replace('"hits": 0.5', f'"hits": {odd}'))
    with pytest.raises(ValueError, match="no calibration"):
        Calibration.from_json(replace(told, made={"folders": ["atlas"]}).to_json())


def test_a_pilot_is_judged_by_one_of_its_size_or_smaller():
    told = calibration()
    marked = replace(told, levels=told.levels | {"pilot of 2": replace(told.levels["pilot of 2"], rule="two")})
    assert marked.level("pilot", 2).rule == "two" and marked.level("pilot").rule == "any"
    assert marked.level("pilot", 9).rule == "any"  # of 3, the largest there is


def test_what_is_shipped_claims_nothing_for_weights_alone():
    told = shipped()
    assert told.level("weights").skill[1] <= 0
    batchnorm = told.of_kind("batchnorm")
    assert batchnorm.level("batches").skill[1] > 0 and batchnorm.level("pilot").skill[1] > 0
    assert told.made["folders"] and told.made["commit"] and told.made["date"]
    assert told.settings >= 12 and told.clusters >= 8


def test_kinds_of_repair_are_calibrated_apart(trials):
    """A signal that finds nothing in networks of one kind takes nothing from the other kind."""
    useless = [
        replace(trial, kind="outputs", cluster=f"{trial.cluster}'", rows=trial.rows.assign(hit=False, regret=9.0))
        for trial in trials
    ]
    told = calibrate([*(replace(trial, kind="batchnorm") for trial in trials), *useless])
    alone = calibrate(trials)
    assert told.levels.keys() == {"weights"} and told.kinds == ("batchnorm", "outputs")
    assert told.of_kind("batchnorm").level("batches") == alone.level("batches")
    assert told.of_kind("outputs").level("batches").skill[0] < 0
    assert told.of_kind("never seen").level("batches") is not None  # whoever decides doubts it then
    assert Calibration.from_json(told.to_json()).repaired.keys() == {"batchnorm", "outputs"}


def test_trials_are_judged_on_a_single_dense_run(trials):
    two = collect([probed("a", dense=(0, 1))])
    assert {trial.run for trial in played(two, "batches")} == {"a dense_seed=0", "a dense_seed=1"}
    assert len({trial.cluster for trial in two}) == 1
    assert len(played(trials, "pilot", 3)) == 2 * len(played(trials, "batches"))  # once a fine-tune seed


def test_hits_and_regrets_are_those_of_the_grid():
    scores = {0.5: (80.0, 84.0, 87.0, 88.0, 89.0, 89.3), 0.9: (76.0, 72.0, 71.0, 70.0, 70.0, 68.0)}
    rows = played(collect([probed(scores=scores)]), "batches")[0].rows
    assert rows["pick"].tolist() == [24.0, 12.0] and rows["best"].tolist() == [24.0, 4.0]
    assert rows["hit"].tolist() == [True, False] and rows["regret"].tolist() == pytest.approx([0.0, 5.0])
    assert rows["gain"].tolist() == pytest.approx([0.0, 8.0])
    assert rows["final checkpoint"].tolist() == rows["gain"].tolist()
    assert rows["kept"].tolist() == pytest.approx([1.0, 18 / 98.2])
    assert rows["reach"].tolist() == pytest.approx([0.0, 0.9])  # epoch 4 lies 14 of 16 below the peak


def test_a_pilot_is_judged_on_the_other_seeds():
    """Seed 0 says 12 beats the end by 1 point, seed 1 that it loses by 3."""
    setting = probed(scores={0.5: (1.0,) * 6, 0.9: (1.0, 1.0, 81.0, 1.0, 1.0, 80.0)}, spread=0.0)
    table = setting.results
    at = (table["finetune_seed"] == 1) & (table["epoch"] == 12) & (table["ratio"] == 0.9)
    for name in ("score", "valid_score"):
        table[name] = table[name].mask(at, 77.0)
    first, second = (trial.rows.iloc[-1] for trial in played(collect([setting]), "pilot", 3))
    assert (first["pick"], first["regret"]) == (12.0, pytest.approx(3.0))  # the best of both seeds is the end: 80
    assert (second["pick"], second["regret"]) == (24.0, pytest.approx(0.0))
    assert not first["hit"] and second["hit"]  # the mean of both seeds, 79, would be within their s.d. of 80


def test_numbers_of_a_band(trials):
    told = calibrate(trials)
    broken = told.level("batches").band_of(0.2)
    assert broken.name == "broken" and broken.clusters == broken.settings == broken.pairs == 5
    assert broken.hits == pytest.approx(3 / 5)  # settings 0 and 3 peak elsewhere
    assert broken.regret[0] == pytest.approx(2 / 5 * 5)
    overall = np.mean([t.rows["hit"].mean() for t in played(trials, "batches")])
    two_of_five = (2 + 2 * overall) / (5 + 2)  # in 9 % of the draws fewer than 2 of 5 hit, in 32 % no more than 2
    assert broken.confidence == pytest.approx(two_of_five) and broken.confidence < broken.hits
    assert broken.trivial_regret == pytest.approx(2.0)
    assert told.level("batches").band_of(0.7) is None  # nothing was seen there
    assert told.level("batches").ratios == (0.5, 0.9) and told.level("batches").checkpoints == (6, 6)
    assert (told.settings, told.clusters, told.dense_runs) == (5, 5, 5)


def test_only_clear_signals_count_in_a_band(trials):
    unclear = [replace(t, rows=t.rows.assign(clear=t.setting != "setting 0")) for t in trials]
    told = calibrate(unclear).level("batches").band_of(0.2)
    assert told.pairs == 4 and told.hits == pytest.approx(3 / 4)  # setting 0 was wrong
    assert all(t.rows["clear"].all() for t in played(trials, "batches"))


def test_three_clusters_are_too_few_for_a_band_or_a_kind():
    """Left out one by one they would never have been answered: nobody would know what such a band is worth."""
    trials = collect(many(3))
    assert calibrate(trials).level("batches").bands == ()
    assert calibrate(trials, fewest=3).level("batches").band_of(0.2).clusters == 3
    assert calibrate([replace(trial, kind="batchnorm") for trial in trials]).levels == {}
    rows = left_out([replace(trial, kind="batchnorm") for trial in trials])
    assert set(rows["doubt"]) == {"not calibrated"}
    trials = [replace(trial, kind="batchnorm") for trial in collect(many(5))]
    assert calibrate(trials).kinds == ("batchnorm",) and calibrate(trials).settings == 5
    trials = [replace(t, kind="outputs" if t.setting == "setting 0" else t.kind) for t in trials]
    told = calibrate(trials)
    assert told.kinds == ("batchnorm",) and told.settings == 4  # what is rare is neither known nor mixed in
    rows = left_out(trials)
    assert set(rows.loc[(rows["setting"] == "setting 0") & (rows["level"] == "batches"), "doubt"]) == {"outside"}


def test_whatever_is_used_was_judged_with_any_cluster_left_out():
    """Of four clusters three are left: each is answered there, and the band is used; of three it is not."""
    trials = [replace(trial, kind="batchnorm") for trial in collect(many(4))]
    heavy = left_out(trials).query("level == 'batches' and ratio == 0.9")
    assert (heavy["band"] == "broken").all() and not heavy["doubt"].isin(["outside"]).any()
    assert calibrate(trials).of_kind("batchnorm").level("batches").band_of(0.2) is not None


def test_a_level_is_used_only_where_no_single_cluster_carries_its_skill(trials):
    own = played(trials, "batches")

    def losing(rule: list[float]) -> list:
        """Where picks lose a point and rules of thumb so many."""
        return [replace(t, rows=t.rows.assign(regret=1.0, **dict.fromkeys(NAMED, r))) for t, r in zip(own, rule)]

    steady, carried = losing([2.0, 1.5, 1.6, 2.0, 1.5]), losing([2.0, 1.2, 0.6, 2.0, 1.5])
    assert calibrate(steady).level("batches").has_skill and not left_out(steady)["abstained"].all()
    told = calibrate(carried).level("batches")
    assert told.skill[1] > 0 > told.least_skill and not told.has_skill  # without the first it has none
    rows = left_out(carried)
    assert set(rows["doubt"]) == {"no skill"}  # judged is what is used, also where the fold itself has skill
    doubt = conclude(carried[0].seen, calibrate(carried))[0].reason
    assert "without one of them it may be none" in doubt


def test_settings_that_share_a_dense_run_are_one():
    shared = [replace(setting, cluster="one") for setting in many(3)]
    told = calibrate(collect(shared))
    assert told.clusters == 1 and told.settings == 3
    assert told.level("batches").skill[1:] == (-1.0, 1.0)  # nothing is known of its spread


def test_thresholds_of_the_regime(trials):
    labels = ["stop early", "either", "train on", "train on"]
    rows = {"kept": [0.12, 0.41, 0.62, 0.9], "label": labels}
    own = [replace(trial, rows=trial.rows.iloc[[0] * 4].assign(**rows)) for trial in played(trials, "batches")]
    told = calibrate(own).level("batches")
    assert (told.stop_below, told.train_from) == (0.15, 0.45)  # the smallest that tell all four apart
    assert balanced_accuracy(np.array(["a", "a", "b"]), np.array(["a", "b", "b"])) == 0.75


def test_whoever_is_judged_had_no_part_in_the_calibration(trials):
    rows = left_out(trials)
    batches = rows[rows["level"] == "batches"]
    assert len(batches) == 10 and not batches["abstained"].all()
    heavy = batches[batches["ratio"] == 0.9].set_index("setting")["confidence"]
    assert heavy["setting 0"] > heavy["setting 1"]  # which it was wrong on itself: without it the others are better
    assert rows[rows["level"] == "weights"]["abstained"].all()
    with pytest.raises(ValueError, match="two clusters"):
        left_out([trial for trial in trials if trial.setting == "setting 0"])


def test_the_reliability_table_by_hand():
    rows = pd.DataFrame({
        "level": ["batches"] * 4, "band": ["intact"] * 4, "abstained": [False, False, False, True],
        "confidence": [0.5, 0.5, 0.5, 0.9], "hit": [True, True, False, False], "regret": [0.0, 0.0, 3.0, 9.0],
        "trivial": [1.0, 1.0, 4.0, 9.0], "trivial_in_band": [1.0, 1.0, 2.5, 9.0],
        "cluster": list("abcd"), "covered": [True, True, True, False],
        "length": [0.2, 0.4, 0.6, 0.8],
        "said": ["train on"] * 4, "label": ["train on", "train on", "stop early", "train on"],
    })  # fmt: skip
    row = reliability(rows).iloc[0]
    assert row["answered"] == 0.75 and row["stated"] == 0.5 and row["observed"] == pytest.approx(2 / 3)
    assert row["brier"] == 0.25 and row["brier_constant"] == pytest.approx(2 / 9)
    assert row["trivial_in_band"] == 1.5
    assert row["regret"] == 1.0 and row["trivial"] == 2.0 and row["coverage"] == 0.75 and row["length"] == 0.5
    assert row["regime"] == 0.5
    assert not row["requirement"]  # the constant is better
    exact = rows.assign(confidence=[0.9, 0.9, 0.1, 0.9])
    assert reliability(exact).iloc[0]["requirement"]


def test_the_command_writes_calibration_page_and_figure(tmp_path, capsys):
    folders = []
    for i, setting in enumerate(many(4)):
        folder = tmp_path / f"run{i}"
        folder.mkdir()
        for name in ("results", "checkpoints", "probes"):
            getattr(setting, name).to_csv(folder / f"{name}.csv", index=False)
        (folder / "study.yaml").write_text("task: {kind: cifar}\n")
        folders.append(str(folder))
    out, page = tmp_path / "mine" / "c.json", tmp_path / "docs" / "page.md"
    assert main([*folders, "--out", str(out), "--page", str(page)]) == 0
    told = Calibration.from_json(out.read_text())
    assert told.kinds == ("batchnorm",) and told.clusters == 4 and list(told.made["folders"].values()) == [1] * 4
    text = page.read_text()
    assert "| batches | batchnorm | +" in text.partition("## Skill")[2].partition("##")[0]
    assert "4 clusters" in text and "| batches |" in text and "nan" not in text
    assert (page.parent / "figures" / "advise-reliability.png").stat().st_size > 0
    before = out.read_text()
    assert main([*folders[:3], "--out", str(out)]) == 2 and out.read_text() == before
    assert "no kind of network has 4 settings or more" in capsys.readouterr().err
    (tmp_path / "run0" / "study.yaml").write_text("task: {kind: 'mine:Task'}\n")
    assert main([folders[0], "--out", str(out)]) == 2 and out.read_text() == before
    assert "run0: which repair its probes had is not known" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    assert "no results.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_shipped_is_what_the_committed_tables_give():
    """All but its date and commit, which say when that was last done."""
    told = json.loads(shipped().to_json())
    folders = [Path(__file__).parents[2] / "recipes" / name for name in told.pop("made")["folders"]]
    found = json.loads(calibrate(collect(folders)).to_json())
    found.pop("made")
    assert list(flat(found)) == list(flat(told))
    for place, value in flat(told).items():
        assert flat(found)[place] == (pytest.approx(value, abs=2e-3) if isinstance(value, float) else value), place


def flat(value: object, place: str = "") -> dict[str, object]:
    """A JSON value's leaves by their path."""
    if isinstance(value, dict):
        return {k: v for name, own in value.items() for k, v in flat(own, f"{place}/{name}").items()}
    if isinstance(value, list):
        return {k: v for i, own in enumerate(value) for k, v in flat(own, f"{place}/{i}").items()}
    return {place: value}


def test_the_page_says_where_too_much_is_stated_and_where_a_rule_of_thumb_would_do():
    def row(level, stated, observed, regret, rule):
        return {
            "level": level, "repair": "batchnorm", "kept": "broken", "answered": 1.0, "stated": stated,
            "observed": observed, "regret": regret, "trivial_in_band": rule,
        }  # fmt: skip

    rows = [row("batches", 0.5, 0.6, 1.0, 2.0), row("pilot of 2", 0.5, 0.4, 1.0, 1.0)]
    silent = row("pilot of 3", 0.9, 0.1, 5.0, 1.0) | {"answered": 0.0}
    said = [" ".join(text.split()) for text in warnings_of(pd.DataFrame([*rows, silent]))]
    assert said == [
        "More was stated than was right: pilot of 2, batchnorm, broken.",
        "No better than the band's own rule of thumb: pilot of 2, batchnorm, broken.",
    ]
    assert [text.rsplit(": ")[1] for text in warnings_of(pd.DataFrame(rows[:1]))] == ["nowhere."] * 2


def test_the_page_states_now_only_what_advise_would_state():
    told = Calibration.from_json(calibration().to_json())
    told = replace(told, kinds=("batchnorm",), repaired={"batchnorm": dict(told.levels)})
    assert stated_now(told, "batchnorm", "batches", "broken") == "40 %"
    assert stated_now(told, "batchnorm", "batches", "nowhere") == stated_now(told, "outputs", "none", "all") == "–"
    dull = replace(told.levels["batches"], skill=(0.1, -0.1, 0.3))
    assert stated_now(replace(told, repaired={"batchnorm": {"batches": dull}}), "batchnorm", "batches", "broken") == "–"
    worse = replace(dull, skill=(0.4, 0.2, 0.6), bands=(replace(dull.bands[0], trivial_regret=0.0),))
    told = replace(told, repaired={"batchnorm": {"batches": worse}})
    assert stated_now(told, "batchnorm", "batches", "broken") == "–"


def test_every_second_checkpoint(trials):
    thinned = collect([probed()], every=2)
    assert played(thinned, "batches")[0].seen.shapes[0.9].epochs.tolist() == [8, 16, 24]
    assert played(thinned, "batches")[0].rows["checkpoints"].tolist() == [3, 3]
    fewer = collect(many(), every=2)
    up, down = left_out(trials, fewer), left_out(fewer, trials)
    assert not up["doubt"].isin(["outside"]).any()
    heavy = down["ratio"] == 0.9  # six checkpoints of three calibrated are no doubt by themselves
    assert not down.loc[heavy, "doubt"].isin(["outside"]).any()
    light = down[~heavy & (down["level"] != "weights")]  # of three, the light signals all still move: none calibrated
    assert (light["doubt"] == "outside").all() and (up.loc[up["ratio"] == 0.5, "doubt"] != "outside").all()


@pytest.mark.parametrize("epoch", [12, 24])
def test_a_checkpoint_without_cells_is_not_picked(epoch):
    """It was probed, is what the signal likes best at one ratio, and was never fine-tuned."""
    setting = probed()
    setting = replace(setting, results=setting.results[setting.results["epoch"] != epoch])
    for trial in collect([setting]):
        assert epoch not in trial.rows["pick"].tolist(), (trial.level, trial.k)
        assert trial.level == "weights" or set(trial.seen.shapes[0.9].epochs) == set(EPOCHS) - {epoch}


def test_a_name_given_twice_is_refused():
    with pytest.raises(ValueError, match="two settings are called"):
        collect([probed(), probed()])
    assert len(EPOCHS) == 6


def test_a_bands_own_rule_of_thumb_is_chosen_on_the_other_clusters(trials):
    """The final checkpoint is best in the light band and an earlier one in the heavy band; setting 0 alone disagrees,
    which counts for the others only."""

    def with_rules(trial):
        own = trial.setting == "setting 0"
        light, heavy = ([8.0, 0.0], [0.0, 9.0]) if own else ([0.0, 4.0], [2.0, 0.0])
        return replace(trial, rows=trial.rows.assign(**{
            "final checkpoint": [light[0], heavy[0]], "50 % of the budget": [light[1], heavy[1]],
        } | {name: 50.0 for name in NAMED if name not in ("final checkpoint", "50 % of the budget")}))  # fmt: skip

    rows = left_out([with_rules(trial) for trial in trials]).query("level == 'batches'").set_index(["setting", "ratio"])
    assert rows.loc[("setting 0", 0.5), "trivial_in_band"] == 8.0  # the others say: the final one
    assert rows.loc[("setting 0", 0.9), "trivial_in_band"] == 9.0  # the others say: half the budget
    assert rows.loc[("setting 1", 0.5), "trivial_in_band"] == 0.0  # final: mean 8/4 = 2 against (0 + 3 * 4)/4 = 3
    assert rows.loc[("setting 1", 0.9), "trivial_in_band"] == 2.0  # final: (0 + 3 * 2)/4 against (9 + 0)/4
    assert rows.loc[("setting 0", 0.9), "trivial"] == 0.0  # for both bands: the final one, 1 in the mean against 2


def test_each_kind_of_network_has_its_own_rule_of_thumb():
    """The final checkpoint is best for one kind, half of the budget for the other."""

    def with_rules(number, trial):
        kind = ("batchnorm", "outputs")[number % 2]
        best, worst = ("final checkpoint", "50 % of the budget")[:: 1 if kind == "batchnorm" else -1]
        others = {name: 50.0 for name in NAMED if name not in (best, worst)}
        return replace(trial, kind=kind, rows=trial.rows.assign(**others, **{best: 0.0, worst: 5.0}))

    trials = [trial for trial in collect(many(8)) if trial.level == "batches"]
    rows = left_out([with_rules(number, trial) for number, trial in enumerate(trials)])
    assert set(rows["kind"]) == {"batchnorm", "outputs"}
    assert (rows["trivial"] == 0.0).all() and (rows["trivial_in_band"] == 0.0).all()
