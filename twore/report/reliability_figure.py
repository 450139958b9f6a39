"""How far advice can be trusted, as a picture: the confidence stated against the share that turned out right."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twore.report.style import LINES, styled

MARKERS = {"broken": "v", "damaged": "D", "intact": "o", "all": "*"}  # what pruning left of the network


@styled
def reliability_chart(table: pd.DataFrame) -> Figure:
    """Share of answered picks within the tie set against the confidence stated, a mark a level and band.

    table: as `twore.advise.reliability.reliability` returns it; rows that answer nothing are not drawn. Marks on the
    diagonal are exact, above it the advice was better than it said; bars are 90 % ranges over clusters of settings.
    ValueError when no row answers.
    """
    rows = table[table["answered"] > 0]
    if rows.empty:
        raise ValueError("no level answers anything: there is no reliability to draw")
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    handles = []
    for (level, own), (colour, _, _) in zip(rows.groupby("level", sort=False), LINES):
        for _, row in own.iterrows():
            ax.plot([row["stated"]] * 2, [row["low"], row["high"]], color=colour, lw=1.2, alpha=0.6)
            ax.plot(row["stated"], row["observed"], marker=MARKERS.get(row["band"], "s"), color=colour, ms=8, ls="none")
        handles.append(Line2D([], [], color=colour, lw=4, label=level))
    used = [band for band in MARKERS if (rows["band"] == band).any()]
    handles += [Line2D([], [], color="grey", marker=MARKERS[band], ls="none", label=band) for band in used]
    ax.set_xlim(0.2, 1)
    ax.set_ylim(0.2, 1)
    ax.set_xlabel("confidence stated")
    ax.set_ylabel("share within the tie set of the best")
    ax.set_title("Advice on settings it has not seen", loc="left")
    ax.legend(handles=handles, loc="lower right")
    return figure
