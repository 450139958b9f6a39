"""The answer of a run folder as a few lines of text, for a terminal: the same sentences as at the top of the page."""

from __future__ import annotations

from pathlib import Path

from twore.report import findings as answers
from twore.report.tables import name_of, of_setting, read_tables, reference


def summary(folder: Path | str) -> str:
    """Headline, both regimes, and a line a ratio (best epoch, score, gain over the last checkpoint).

    Of the setting that the page shows first. Raises as `write_report`.
    """
    tables = read_tables(Path(folder))
    setting = reference(tables.results)
    results = of_setting(tables.results, setting)
    assert results is not None  # the reference is one of the settings
    found = answers.findings(results)
    rows = [
        f"  {row['ratio']:>6.6g}  {row['epoch']:>10g}  {row['score']:>7.2f}  {row['gain']:>+22.2f}"
        for _, row in found.best.iterrows()
    ]
    return "\n".join(
        [
            f"{name_of(setting)}: {answers.headline(found)}",
            *answers.answer(found),
            "",
            "   ratio  best epoch    score  gain over last epoch",
            *rows,
            answers.averages(found),
        ]
    )
