"""Short pilots on tables whose answer is known: one that ranks as the full fine-tuning does, and one that misleads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from boards import SCORES, make_setting

from twore.analysis import default_predictors, score_settings, settings_of, split_dense_seeds, with_short_pilots
from twore.analysis.short_pilots import short_cost, short_pilot, short_pilots
from twore.cli import main

FULL, SHORT = {"epochs": 8}, {"epochs": 1, "share": 0.5}  # a sixteenth
BEST = {0.5: 20, 0.9: 8}
PERFECT = SCORES
WRONG = {ratio: tuple(-score for score in row) for ratio, row in SCORES.items()}  # ranks backwards: 4 and 4
LOST = {0.5: 20.0, 0.9: 12.0}  # points between the best epoch and epoch 4


def folder(path: Path, scores=SCORES, *, finetune=FULL, key="run", **options) -> Path:
    """A run folder; key: of its dense run."""
    made = make_setting("", scores, key=key, **options)
    path.mkdir()
    made.results.assign(key="of a cell").to_csv(path / "results.csv", index=False)
    made.checkpoints.to_csv(path / "checkpoints.csv", index=False)
    if made.probes is not None:
        made.probes.to_csv(path / "probes.csv", index=False)
    (path / "study.yaml").write_text(yaml.safe_dump({"finetune": finetune}))
    return path


def short_folder(path: Path, scores, **options) -> Path:
    return folder(path, scores, **({"finetune": SHORT, "seeds": (3,), "probes": False} | options))


def judged(settings, rule):
    return score_settings(settings, [rule]).iloc[0]


@pytest.mark.parametrize("probes", [True, False])
def test_a_pilot_that_ranks_as_the_grid_does_has_no_regret(tmp_path, probes):
    full = folder(tmp_path / "full", probes=probes)
    (setting,) = with_short_pilots([full], [short_folder(tmp_path / "short", PERFECT)])
    assert short_pilot().pick(setting) == BEST
    assert judged([setting], short_pilot())["mean_regret"] == 0


def test_a_pilot_that_ranks_backwards_has_the_regret_of_its_picks(tmp_path):
    (setting,) = with_short_pilots([folder(tmp_path / "full")], [short_folder(tmp_path / "short", WRONG)])
    assert judged([setting], short_pilot())["mean_regret"] == pytest.approx(sum(LOST.values()) / 2)


def test_it_costs_its_own_share_of_the_epochs(tmp_path):
    """A sixteenth of the epochs, with one seed where the grid has three; then with two of its own."""
    full = folder(tmp_path / "full")
    (one,) = with_short_pilots([full], [short_folder(tmp_path / "one", PERFECT)])
    assert short_cost(one) == pytest.approx(1 / 16 / 3)
    (two,) = with_short_pilots([full], [short_folder(tmp_path / "two", PERFECT, seeds=(3, 4))])
    assert short_cost(two) == pytest.approx(2 / 16 / 3)
    shortlist = next(rule for rule in short_pilots([one]) if rule.name.startswith("pilot of 3"))
    assert shortlist.cost_of(one) == pytest.approx(1 / 16 / 3 + (2 + 3) / (2 * 5 * 3))  # 20 is both best and final
    assert shortlist.pick(one) == BEST


def test_a_spared_one_costs_where_pruning_breaks_the_final_checkpoint(tmp_path):
    """The final checkpoint keeps all of its score at 0.5, and 4 of 10 at 0.9, where epoch 8 is best."""
    short = short_folder(tmp_path / "short", PERFECT)
    (setting,) = with_short_pilots([folder(tmp_path / "full")], [short])
    late = setting.probes["ratio"] > 0.6
    told = setting.probes.assign(recalibrated_score=10.0 - 6.0 * late, cost=0.1)
    setting = replace(setting, probes=told)
    rules = {rule.name: rule for rule in short_pilots([setting])}
    probes = 2 * 5 * 0.1 / (2 * 5 * 3)
    for words, cells in (("short pilot", 0), ("pilot of 3 by short pilot", 3)):
        rule = rules[f"{words} where pruning breaks the final checkpoint, else that"]
        assert rule.pick(setting) == BEST
        assert rule.cost_of(setting) == pytest.approx(1 / 16 / 3 / 2 + cells / (2 * 5 * 3) + probes)
        assert rule.pick(replace(setting, probes=told.assign(recalibrated_score=10.0))) == {0.5: 20, 0.9: 20}


def test_a_swept_length_is_that_of_the_setting(tmp_path):
    full, short = folder(tmp_path / "full"), short_folder(tmp_path / "short", PERFECT)
    table = pd.read_csv(full / "results.csv")
    table.insert(1, "finetune_epochs", 4)
    table.to_csv(full / "results.csv", index=False)
    (setting,) = with_short_pilots([full], [short])
    assert short_cost(setting) == pytest.approx(1 / 8 / 3)


def test_it_chooses_on_validation_scores(tmp_path):
    short = short_folder(tmp_path / "short", PERFECT)
    table = pd.read_csv(short / "results.csv")
    table.assign(score=-table["score"]).to_csv(short / "results.csv", index=False)
    (setting,) = with_short_pilots([folder(tmp_path / "full")], [short])
    assert short_pilot().pick(setting) == BEST


def test_cells_are_known_by_the_dense_run_and_not_by_the_setting(tmp_path):
    full, other = folder(tmp_path / "full", dense=(0, 1)), folder(tmp_path / "other", key="another")
    short = short_folder(tmp_path / "short", PERFECT, dense=(0, 1))
    for name in ("results.csv", "checkpoints.csv"):
        table = pd.read_csv(short / name)
        table.assign(setting="called otherwise").to_csv(short / name, index=False)
    with_it, without = with_short_pilots([full, other], [short])
    assert set(short_pilot().pick(with_it)) == set(SCORES)
    assert short_pilot().pick(without) is None
    assert [short_pilot().pick(part) for part in split_dense_seeds(with_it)] == [BEST, BEST]
    assert score_settings([with_it, without], [short_pilot()])["setting"].tolist() == [with_it.name]


def test_of_several_short_fine_tunings_of_a_run_the_one_called_alike_counts(tmp_path):
    full, short = folder(tmp_path / "full"), short_folder(tmp_path / "short", PERFECT)
    for name in ("results.csv", "checkpoints.csv"):
        table = pd.read_csv(short / name)
        doubled = pd.concat([table.assign(setting="finetune_lr=1"), table.assign(setting="finetune_lr=2")])
        if "valid_score" in doubled and name == "results.csv":
            doubled.loc[doubled["setting"] == "finetune_lr=1", "valid_score"] *= -1
        doubled.to_csv(short / name, index=False)
    with pytest.raises(ValueError, match="several short fine-tunings"):
        with_short_pilots([full], [short])
    for name in ("results.csv", "checkpoints.csv", "probes.csv"):
        table = pd.read_csv(full / name)
        table.assign(setting="finetune_lr=2").to_csv(full / name, index=False)
    (setting,) = with_short_pilots([full], [short])
    assert short_pilot().pick(setting) == BEST


def test_two_folders_with_fine_tunings_of_one_run_are_not_mixed(tmp_path):
    full, one = folder(tmp_path / "full"), short_folder(tmp_path / "one", PERFECT)
    other = short_folder(tmp_path / "other", WRONG, finetune={"epochs": 2})
    with pytest.raises(ValueError, match="several short fine-tunings"):
        with_short_pilots([full], [one, other])
    (setting,) = with_short_pilots([full], [one, one])  # the same folder twice is one
    assert short_cost(setting) == pytest.approx(1 / 16 / 3)


def test_it_is_not_judged_on_the_seeds_that_it_chose_with(tmp_path):
    full = folder(tmp_path / "full")
    with pytest.raises(ValueError, match=r"judged on fine-tune seeds that the short pilot chose with \(2\)"):
        with_short_pilots([full], [short_folder(tmp_path / "short", PERFECT, seeds=(2, 3))])


def test_what_cannot_be_joined_is_said(tmp_path):
    full, foreign = folder(tmp_path / "full"), short_folder(tmp_path / "foreign", PERFECT, key="other")
    with pytest.raises(ValueError, match="none of these dense runs"):
        with_short_pilots([full], [foreign])
    short = short_folder(tmp_path / "short", PERFECT)
    table = pd.read_csv(short / "checkpoints.csv")
    table.drop(columns="key").to_csv(short / "checkpoints.csv", index=False)
    with pytest.raises(ValueError, match="no keys"):
        with_short_pilots([full], [short])
    (short / "study.yaml").unlink()
    with pytest.raises(ValueError, match=r"no study\.yaml"):
        with_short_pilots([full], [short])


def test_they_are_on_the_board_where_there_are_short_cells_only(tmp_path):
    full = folder(tmp_path / "full")
    assert short_pilots(settings_of(full)) == []
    settings = with_short_pilots([full], [short_folder(tmp_path / "short", PERFECT)])
    assert {rule.name for rule in short_pilots(settings)} <= {rule.name for rule in default_predictors(settings)}


def test_twore_score_reads_both(tmp_path):
    full, short = folder(tmp_path / "full"), short_folder(tmp_path / "short", PERFECT)
    assert main(["score", str(full), "--pilot-from", str(short), "--out", str(tmp_path / "out")]) == 0
    board = pd.read_csv(tmp_path / "out" / "scoreboard.csv").set_index("predictor")
    assert board.loc["short pilot: largest short_score", "mean_regret"] == 0
