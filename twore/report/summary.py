"""The answer of a run folder as a few lines of text, for a terminal: the same sentences as at the top of the page."""

from __future__ import annotations

from pathlib import Path

from twore.report import findings as answers
from twore.report.by_loss import loss_sentence
from twore.report.tables import RunTables, differences, name_of, of_setting, read_tables, reference, settings


def summary(folder: Path | str) -> str:
    """Headline, both regimes, and a line a ratio (best epoch, score, gain over the last checkpoint).

    Of the setting that the page shows first; then, with several settings, a line a setting. Raises as `write_report`.
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
            *loss_sentence(results, tables.score_label),
            "",
            "   ratio  best epoch    score  gain over last epoch",
            *rows,
            answers.averages(found),
            *_each_setting(tables),
        ]
    )


def _each_setting(tables: RunTables) -> list[str]:
    """With several settings: what distinguishes each, where stopping early pays, and the gain at the heaviest ratio."""
    names = settings(tables.results)
    if len(names) < 2:
        return []
    words = differences(tables.results)
    lines = ["", "  stopping early pays from  gain at the heaviest ratio (s.d. over seeds)  setting"]
    for name in names:
        results = of_setting(tables.results, name)
        assert results is not None
        found = answers.findings(results)
        heaviest, start = found.best.iloc[-1], found.line.upper
        gain = f"{heaviest['gain']:+.2f} ({heaviest['gain_sd']:.2f}) at {heaviest['ratio']:.6g}"
        lines.append(f"  {'nowhere' if start is None else f'{start:.6g}':<26}{gain:<46}{words[name]}")
    return lines
