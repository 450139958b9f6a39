"""The report of a run folder: every figure as PNG and SVG, and one page that explains them. Reads tables only, never
torch.

from twore.report import write_report
write_report(Path("runs/cifar"))            # -> runs/cifar/report.html, runs/cifar/figures/figure-3a-regimes.png, ...
"""

from __future__ import annotations

from pathlib import Path

from twore.report.entries import entries
from twore.report.page import Picture, render
from twore.report.scoring import write_scoreboard
from twore.report.style import data_uri, save
from twore.report.summary import summary
from twore.report.tables import read_tables

__all__ = ["summary", "write_report", "write_scoreboard"]


def write_report(folder: Path | str) -> Path:
    """Write `figures/*.png`, `figures/*.svg` and `report.html` into a run folder; returns the page.

    Needs results.csv; reads study.yaml, the other tables and scoreboard.csv (of write_scoreboard) where they are, and
    says on the page which figures had to be left out and why. The same tables give the same bytes.

    Raises FileNotFoundError without results.csv, ValueError when it has no rows or a score that is no number.
    """
    folder = Path(folder)
    tables = read_tables(folder)
    pictures = []
    for entry in entries(tables):
        uri = None
        if entry.figure is not None:
            save(entry.figure, folder / "figures", entry.key)
            uri = data_uri(folder / "figures" / f"{entry.key}.svg")
        else:
            for old in (folder / "figures").glob(f"{entry.key}.*"):
                old.unlink()  # from an earlier report: a figure that no longer follows from the tables
        pictures.append(Picture(entry, uri, alt=f"{entry.title}. {' '.join(entry.reading)}"))
    page = folder / "report.html"
    page.write_text(render(tables, pictures), encoding="utf-8")
    return page
