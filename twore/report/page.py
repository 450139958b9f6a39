"""One HTML page with the answer, the figures and where they come from. It needs no network and no script.

`render` fills the template `page.html.j2`; figures are embedded as SVG. All numbers are computed in
`twore.report.findings`, `twore.report.readings` and here; the template holds none.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined

from twore.report import findings as answers
from twore.report.by_loss import loss_sentence
from twore.report.entries import Entry
from twore.report.samples import sample_rows
from twore.report.scoring import board_rows
from twore.report.tables import RunTables, name_of, of_setting, reference, settings

QUESTION = "when should training stop before pruning?"
MOST_FAILURES = 20  # rows shown; the file has them all


@dataclass(frozen=True)
class Picture:
    """An entry of the page after drawing: `uri` holds the image, None when it was skipped; `alt` says what it shows."""

    entry: Entry
    uri: str | None
    alt: str


def render(tables: RunTables, pictures: list[Picture]) -> str:
    """The page as HTML text."""
    failed = tables.failures
    setting = reference(tables.results)
    by_setting = {
        name: frame for name in settings(tables.results) if (frame := of_setting(tables.results, name)) is not None
    }
    each = {name: answers.findings(frame) for name, frame in by_setting.items()}
    found = each[setting]
    said = of_setting(tables.samples, setting)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("twore.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=f"{tables.study['name']}: {QUESTION}" if tables.study.get("name") else QUESTION.capitalize(),
        score_label=tables.score_label,
        setting=name_of(setting),
        several=len(each) > 1,
        headline=answers.headline(found),
        answer=[*answers.answer(found), *loss_sentence(by_setting[setting], tables.score_label)],
        averages=answers.averages(found),
        drawn=[picture for picture in pictures if picture.uri],
        skipped=[picture.entry for picture in pictures if not picture.uri],
        optima={name_of(name): optima_rows(one) for name, one in _reference_first(each, setting).items()},
        settings=[setting_row(name, one, tables.results) for name, one in each.items()],
        provenance=provenance(tables),
        study=yaml.safe_dump(tables.study, sort_keys=False, allow_unicode=True) if tables.study else None,
        board=[] if tables.scoreboard is None else board_rows(tables.scoreboard),
        samples=[] if said is None else sample_rows(said, found),
        failures=[] if failed is None else failed.head(MOST_FAILURES).astype(object).fillna("").to_dict("records"),
        failure_count=0 if failed is None else len(failed),
    )


def optima_rows(found: answers.Findings) -> list[dict[str, str]]:
    """The table of optimal epochs, heaviest ratio first, as texts."""
    return [
        {
            "ratio": f"{row['ratio']:.6g}", "epoch": f"{row['epoch']:g}", "ties": _epochs(row["ties"], row["epoch"]),
            "score": f"{row['score']:.2f}", "final": _number(row["final_score"]), "gain": _signed(row["gain"]),
            "gain_sd": _number(row["gain_sd"]),
            "regime": "" if found.line.upper is None else "II" if row["ratio"] in found.heavy else "I",
        }
        for _, row in found.best[::-1].iterrows()
    ]  # fmt: skip


def setting_row(name: str, found: answers.Findings, results: pd.DataFrame) -> dict[str, str]:
    """One line of the table of settings."""
    line, heaviest = found.line, found.best.iloc[-1]
    run, planned = cells(results[results["setting"] == name])
    return {
        "setting": name_of(name), "seeds": f"{found.seeds[0]} dense, {found.seeds[1]} fine-tune",
        "cells": f"{run}" if run == planned else f"{run} of {planned}",
        "line": "not known yet" if line.upper is None and found.unknown
                else "no early stopping" if line.upper is None else f"{line.upper:.6g} and above" if line.lower is None
                else f"between {line.lower:.6g} and {line.upper:.6g}",
        "interval": "" if line.interval is None else answers.interval_text(line.interval),
        "heaviest": f"epoch {heaviest['epoch']:g} at {heaviest['ratio']:.6g}", "gain": _signed(heaviest["gain"]),
    }  # fmt: skip


def provenance(tables: RunTables) -> list[tuple[str, str]]:
    """Where the numbers come from: machines, commits, dates, compute, how complete the grid is."""
    frames = [t for t in (tables.results, tables.checkpoints, tables.pairs) if t is not None]

    def seen(column: str) -> list[str]:
        return sorted({str(v) for t in frames if column in t.columns for v in t[column].dropna()})

    counts = [cells(rows) for _, rows in tables.results.groupby("setting")]
    run, planned = sum(c[0] for c in counts), sum(c[1] for c in counts)
    complete = f"{run:,}" if run == planned else f"{run:,} of the {planned:,} of a full grid: the study is not complete"
    facts = [("cells", complete), ("settings", str(len(counts)))]
    if dates := seen("finished_at"):
        facts.append(("computed", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"))
    if hosts := seen("host"):
        facts.append((f"host{'s' * (len(hosts) > 1)}", ", ".join(hosts)))
    if commits := seen("commit"):
        facts.append((f"commit{'s' * (len(commits) > 1)}", ", ".join(commits)))
    spent = [
        (n, t)
        for n, t in (("cells", tables.results), ("checkpoints", tables.checkpoints), ("pairs", tables.pairs))
        if t is not None and {"seconds", "key"} <= set(t)
    ]
    if spent:
        parts = [f"{duration(float(t.drop_duplicates('key')['seconds'].sum()))} for {name}" for name, t in spent]
        facts.append(("compute (all workers together)", ", ".join(parts)))
    return facts


def cells(results: pd.DataFrame) -> tuple[int, int]:
    """Rows of one setting, and the rows of the full product of its dense seeds, epochs, ratios and fine-tune seeds."""
    axes = [name for name in ("dense_seed", "epoch", "ratio", "finetune_seed") if name in results.columns]
    return len(results), int(np.prod([results[name].nunique() for name in axes]))


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3.5 min, 2.1 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _reference_first(each: dict[str, Any], setting: str) -> dict[str, Any]:
    return {setting: each[setting], **each}


def _epochs(ties: tuple[float, ...], best: float) -> str:
    return ", ".join(f"{epoch:g}" for epoch in ties if epoch != best) or "none"


def _number(value: float) -> str:
    return "not known" if np.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    if np.isnan(value):
        return "not known"
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.005 else "0.00"
