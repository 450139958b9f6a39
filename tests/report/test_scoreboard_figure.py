"""The chart of the scoreboard draws what the table says."""

import numpy as np
import pandas as pd
import pytest

from twore.report.scoreboard_figure import scoreboard_chart
from twore.report.style import save


def board(**columns) -> pd.DataFrame:
    rows = {
        "predictor": ["pilot", "metric", "final checkpoint", "rare"], "needs": ["pilot", "weights", "nothing", "grid"],
        "trivial": [False, False, True, False], "cost": [0.052, 0.0, 0.0, np.nan], "settings": [9, 9, 9, 2],
        "mean_regret": [0.3, 2.0, 1.5, 0.1], "mean_low": [0.2, 1.0, 1.0, np.nan], "mean_high": [0.5, 3.0, 2.2, np.nan],
        "worst_regret": [0.9, 6.0, 3.0, 0.1],
    }  # fmt: skip
    return pd.DataFrame(rows | columns)


def texts(figure) -> list[str]:
    ax = figure.axes[0]
    return [text.get_text() for text in [*ax.texts, *ax.get_yticklabels()]]


def test_every_row_is_drawn_with_its_cost_and_reach():
    figure = scoreboard_chart(board(), unit="BLEU")
    said = texts(figure)
    assert {"pilot", "metric", "final checkpoint", "rare", "5.2 %", "–", "9 of 9", "2 of 9"} <= set(said)
    ax = figure.axes[0]
    means = {(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() in "^osv" and
             len(line.get_xdata()) == 1}  # fmt: skip
    assert means == {(0.3, 0), (2.0, 1), (1.5, 2), (0.1, 3)}
    assert any(set(np.ravel(line.get_xdata())) == {1.5} and line.get_linestyle() == "--" for line in ax.lines)
    assert "BLEU" in ax.get_xlabel()


def test_long_boards_keep_the_trivial_rules():
    said = texts(scoreboard_chart(board(), most=1))
    assert "pilot" in said and "final checkpoint" in said and "metric" not in said


def test_regret_may_be_negative_and_intervals_missing(tmp_path):
    none = board(mean_low=np.nan, mean_high=np.nan, mean_regret=[-0.4, 2.0, 1.5, 0.1])
    figure = scoreboard_chart(none)
    assert figure.axes[0].get_xlim()[0] < -0.4
    first = [path.read_bytes() for path in save(figure, tmp_path / "a", "board")]
    second = [path.read_bytes() for path in save(scoreboard_chart(none), tmp_path / "b", "board")]
    assert first == second


def test_an_empty_board_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        scoreboard_chart(board().head(0))
