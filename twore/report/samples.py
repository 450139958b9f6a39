"""What dense and pruned models said, side by side: samples.csv as texts for the page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from twore.report.findings import Findings

MOST = 4  # sentences shown; samples.csv has them all
NOT_HERE = "(left out of this folder)"  # text that may not be given on


def sample_rows(samples: pd.DataFrame, found: Findings) -> list[dict[str, Any]]:
    """A few inputs of one setting, each with its reference and what models made of it, of the first seeds.

    Shown are the last dense model and, for the lightest and the heaviest ratio, the pruned last checkpoint and the
    pruned best one. Rows: {"input", "reference", "outputs": [(model in words, text), ...]}.
    """
    first = samples[samples["dense_seed"] == samples["dense_seed"].min()]
    dense, cells = first[first["ratio"].isna()], first[first["ratio"].notna()]
    if cells.empty:
        return []
    cells = cells[cells["finetune_seed"] == cells["finetune_seed"].min()]
    last = found.best["final_epoch"].iloc[0]
    chosen = [(f"dense, epoch {last:g}", dense[dense["epoch"] == last])]
    for row in (found.best.iloc[0], found.best.iloc[-1]):
        at_ratio = cells[(cells["ratio"] - row["ratio"]).abs() < 1e-9]
        for epoch in dict.fromkeys((last, row["epoch"])):
            best = ", the best epoch" if epoch == row["epoch"] else ""
            words = f"{row['ratio']:g} removed at epoch {epoch:g}{best}"
            chosen.append((words, at_ratio[at_ratio["epoch"] == epoch]))
    texts = [(words, dict(zip(rows["sample"], rows["output"]))) for words, rows in chosen if len(rows)]
    asked = first.drop_duplicates("sample").sort_values("sample").head(MOST)
    return [
        {
            "input": row.get("input", NOT_HERE),
            "reference": row.get("reference", NOT_HERE),
            "outputs": [(words, said.get(row["sample"], "")) for words, said in texts],
        }
        for _, row in asked.iterrows()
    ]
