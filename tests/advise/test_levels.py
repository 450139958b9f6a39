"""The scoreboard's answer at each level, and which cells a pilot fine-tunes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from probed import EPOCHS, LIGHT, asked, calibration, piloted, probed

from twore.advise.deciding import decide
from twore.advise.levels import DEFAULT_K, LEVELS, all_checkpoints, rule_of, shortlist, trivial_picks
from twore.analysis import default_predictors, settings_of, split_dense_seeds
from twore.analysis.evaluation import blind, trials
from twore.commands.advise import PILOT

ATLAS = Path(__file__).resolve().parents[2] / "recipes" / "cifar_scaling" / "atlas"


def test_every_rule_stands_on_the_scoreboard():
    settings = [probed(name) for name in ("a", "b")]
    on_the_board = {rule.name: rule for rule in default_predictors(settings)}
    for level in LEVELS:
        assert rule_of(level).name in on_the_board
        assert rule_of(level).pick(settings[0]) == on_the_board[rule_of(level).name].pick(settings[0])


def test_an_unknown_level_and_a_pilot_of_one_are_refused():
    with pytest.raises(ValueError, match="weights, batches, pilot"):
        rule_of("guess")
    with pytest.raises(ValueError, match="two fine-tuned checkpoints"):
        rule_of("pilot", 1)
    assert PILOT == DEFAULT_K  # what `--pilot` without a number says


def test_the_shortlist_is_the_best_by_the_single_checkpoints_and_the_final_one():
    lists = shortlist(asked(probed()), 3)
    assert lists == {0.5: [20.0, 24.0], 0.9: [8.0, 12.0, 24.0]}  # at 0.9 epochs 8 and 16 tie for second: the earlier
    assert shortlist(asked(probed()), 2)[0.9] == [12.0, 24.0]


def test_no_shortlist_without_probes():
    with pytest.raises(ValueError, match="probe it first"):
        shortlist(replace(asked(probed()), probes=None))


def test_a_pilot_of_shortlisted_cells_answers_as_one_on_the_whole_grid():
    setting = probed(scores={0.5: (1, 2, 3, 4, 5, 6), 0.9: (9, 8, 3, 3, 3, 4)})  # epoch 4 is best and not shortlisted
    cells = piloted(setting, shortlist(asked(setting), 3))
    whole = rule_of("pilot", 3).pick(replace(setting, results=setting.results.query("finetune_seed == 0")))
    assert {v.ratio: v.epoch for v in decide(cells, level="pilot", calibration=calibration())} == whole
    assert whole == {0.5: 24.0, 0.9: 8.0}


def test_a_pilot_still_knows_every_checkpoint():
    setting = probed()
    cells = piloted(setting, shortlist(asked(setting), 2))
    assert set(cells.results["epoch"]) == {12, 24}
    assert sorted(set(all_checkpoints(cells).results["epoch"])) == list(EPOCHS)


def test_rules_of_thumb_are_told_by_name():
    picks = trivial_picks(asked(probed()))[0.9]
    assert picks["final checkpoint"] == 24 and picks["50 % of the budget"] == 12
    assert picks["last before the first rate drop"] == 12 and "random epoch" not in picks


@pytest.mark.slow
def test_the_scoreboards_answer_on_the_committed_atlas():
    """Every dense run at every level, from what a user would have, against the scoreboard's own predictor objects on
    what the scoreboard hands them."""
    settings = settings_of(ATLAS)
    board = {rule.name: rule for rule in default_predictors(settings)}
    compared = 0
    for setting in settings:
        run = split_dense_seeds(setting)[0]
        for level in ("weights", "batches"):
            said = {v.ratio: v.epoch for v in decide(asked(run), level=level, calibration=calibration())}
            assert said == board[rule_of(level).name].pick(blind(run))
        seen, _ = next(iter(trials(run)))
        cells = piloted(replace(run, results=seen.results), shortlist(asked(run), 3))
        said = {v.ratio: v.epoch for v in decide(cells, level="pilot", calibration=calibration())}
        assert said == board[rule_of("pilot").name].pick(seen)
        compared += len(said)
    assert compared == 12 * 6


def test_single_checkpoints_are_compared():
    """Averaged over neighbours 12 would win at 0.9, by 30 against 27.3."""
    spiky = {0.5: LIGHT, 0.9: (20.0, 30.0, 33.0, 27.0, 20.0, 35.0)}
    verdicts = decide(asked(probed(probes=spiky)), level="batches", calibration=calibration())
    assert [v.epoch for v in verdicts] == [24.0, 24.0]
