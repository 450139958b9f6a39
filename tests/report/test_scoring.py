"""The scoreboard of run folders: files, words, the section of the page, and the command."""

from __future__ import annotations

import pandas as pd
import pytest
import synthetic

from twore.analysis.scoreboard import BOARD
from twore.cli import main
from twore.report import write_report, write_scoreboard
from twore.report.scoring import in_words


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = synthetic.write_run(tmp_path_factory.mktemp("scored"), scaling=True, dense_seeds=2)
    return folder, write_scoreboard([folder], folder)


def test_the_board_is_written_with_a_row_a_predictor(scored):
    folder, scores = scored
    board = pd.read_csv(folder / "scoreboard.csv")
    assert list(board.columns) == list(BOARD)
    assert len(board) == len(scores.board)
    assert {"final checkpoint", "largest random_distance", "smallest model_similarity"} <= set(board["predictor"])
    by_setting = pd.read_csv(folder / "scoreboard_settings.csv")
    assert by_setting["setting"].nunique() == 5
    assert (folder / "figures" / "scoreboard.png").stat().st_size > 10_000


def test_the_mean_is_that_of_the_settings(scored):
    """By hand: the last checkpoint loses 1.6, 4.8 and 9.6 points at three of six ratios, 16 / 6 in the reference."""
    folder, _ = scored
    rows = pd.read_csv(folder / "scoreboard_settings.csv").set_index("predictor").loc["final checkpoint"]
    reference = rows[rows["setting"].str.endswith("depth=8 data_percent=100")]["mean_regret"]
    assert float(reference.iloc[0]) == pytest.approx(16 / 6, abs=1e-4)
    board = pd.read_csv(folder / "scoreboard.csv").set_index("predictor")
    assert board.loc["final checkpoint", "mean_regret"] == pytest.approx(rows["mean_regret"].mean(), abs=1e-4)


def test_words_name_every_trivial_rule(scored):
    text = in_words(scored[1], most=3)
    for name in ("final checkpoint", "25 % of the budget", "random epoch"):
        assert f"{name} (trivial)" in text


def test_the_page_has_the_board_once_it_is_there(scored, tmp_path):
    folder, _ = scored
    page = write_report(folder).read_text(encoding="utf-8")
    part = page.split('id="predictors"')[1].split("</section>")[0]
    assert "largest random_distance" in part
    assert "5 settings of this folder" in part
    alone = write_report(synthetic.write_run(tmp_path)).read_text(encoding="utf-8")
    assert 'id="predictors"' not in alone


def test_the_command_judges_several_folders_together(tmp_path, capsys, monkeypatch):
    folders = [synthetic.write_run(tmp_path / name, two_regimes=name == "a") for name in ("a", "b")]
    monkeypatch.chdir(tmp_path)
    assert main(["score", *map(str, folders)]) == 0
    assert "written: scoreboard/scoreboard.csv" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "scoreboard" / "scoreboard.csv")["settings"].max() == 2


def test_bad_folders_are_one_sentence(tmp_path, capsys):
    assert main(["score", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no results.csv" in said
    assert said.count("\n") == 1
