"""The scoreboard of run folders, written: scoreboard.csv, a row a setting beside it, the chart, and lines of text.

write_scoreboard([Path("runs/a"), Path("runs/b")], Path("scores"))
    -> scores/scoreboard.csv, scores/scoreboard_settings.csv, scores/figures/scoreboard.png and .svg
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from twore.analysis import comparable, default_predictors, score_settings, summarise, with_short_pilots
from twore.report.scoreboard_figure import scoreboard_chart
from twore.report.style import save

BOARD, BY_SETTING, CHART = "scoreboard.csv", "scoreboard_settings.csv", "scoreboard"


@dataclass(frozen=True, eq=False)
class Scores:
    """The board, a row a predictor; and what was left out: settings whose grid is not complete."""

    board: pd.DataFrame
    left_out: list[str]


def write_scoreboard(
    folders: Sequence[Path], out: Path, *, dense: str = "mean", pilot_from: Sequence[Path] = ()
) -> Scores:
    """Judge every predictor on every setting of the folders, and write board, rows by setting and chart into `out`.

    dense: "mean", dense seeds are replicates, or "each", every dense run is judged by itself. pilot_from: run folders
    of short fine-tunings of the same dense runs, for the rows of short pilots (twore.analysis.short_pilots).
    FileNotFoundError without results.csv, ValueError when no grid has two checkpoints complete at any ratio.
    """
    sources = with_short_pilots(folders, pilot_from) if pilot_from else folders
    settings, left_out = comparable(sources, dense=dense)
    rows = score_settings(settings, default_predictors(settings))
    board = summarise(rows)
    out.mkdir(parents=True, exist_ok=True)
    board.to_csv(out / BOARD, index=False, lineterminator="\n", float_format="%.6g")
    rows.to_csv(out / BY_SETTING, index=False, lineterminator="\n", float_format="%.6g")
    save(scoreboard_chart(board), out / "figures", CHART)
    return Scores(board, left_out)


def in_words(scores: Scores, *, most: int = 15) -> str:
    """The first rows of the board and every trivial rule, for a terminal."""
    lines = ["mean regret (90 % interval)  worst setting    cost  settings  predictor"]
    for place, (_, row) in enumerate(scores.board.iterrows()):
        if place < most or row["trivial"]:
            name = row["predictor"] + (" (trivial)" if row["trivial"] else "")
            mean = f"{row['mean_regret']:6.2f} {_interval(row['mean_low'], row['mean_high'])}"
            cost = _cost(row["cost"])
            lines.append(f"{mean:27}  {row['worst_regret']:13.2f}  {cost:>6}  {row['settings']:>8}  {name}")
    if scores.left_out:
        lines.append(f"left out, their grids are not complete: {', '.join(scores.left_out)}")
    return "\n".join(lines)


def board_rows(board: pd.DataFrame) -> list[dict[str, str]]:
    """The board as texts for the page."""
    return [
        {
            "predictor": row["predictor"] + (" (trivial)" if row["trivial"] else ""),
            "needs": row["needs"],
            "cost": _cost(row["cost"]),
            "mean": f"{row['mean_regret']:.2f} {_interval(row['mean_low'], row['mean_high'])}".strip(),
            "heavy": "" if pd.isna(row["heavy_regret"]) else f"{row['heavy_regret']:.2f}",
            "worst": f"{row['worst_regret']:.2f}",
            "settings": f"{row['settings']:g}",
        }
        for _, row in board.iterrows()
    ]


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"({low:.2f} to {high:.2f})"


def _cost(share: float) -> str:
    return "?" if pd.isna(share) else "0" if share == 0 else f"{100 * share:.1f} %"
