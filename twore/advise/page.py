"""An `Advice` as one HTML page that needs no network and no script; the template holds no number."""

from __future__ import annotations

import base64
from importlib.resources import files

import pandas as pd
from jinja2 import Environment, StrictUndefined

from twore.advise.advice import Advice
from twore.advise.figure import alt, image
from twore.advise.text import fine_tuned, headline, rules_in_words, short_names

SHOWN = (  # of the weights-only metrics; the JSON has all
    "lr", "train_loss", "valid_score", "random_distance", "powerlaw_alpha", "stable_rank", "distance_from_init",
    "distance_from_previous",
)  # fmt: skip


def render(advice: Advice) -> str:
    """The page as HTML text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("twore.advise").joinpath("page.html.j2").read_text(encoding="utf-8"))
    columns = [name for name in SHOWN if name in advice.checkpoints and advice.checkpoints[name].notna().any()]
    names = short_names(advice)
    return template.render(
        headline=headline(advice),
        unit=advice.unit,
        picture="data:image/svg+xml;base64," + base64.b64encode(image(advice, ".svg")).decode(),
        alt=alt(advice),
        answered=any(not verdict.abstained for verdict in advice.verdicts),
        verdicts=[_verdict(advice, i) for i in range(len(advice.verdicts))],
        columns=[advice.metric or name if name == "valid_score" else name for name in columns],
        checkpoints=[
            [names[float(row["epoch"])], f"{row['epoch']:g}", *(_number(row[name]) for name in columns)]
            for _, row in advice.checkpoints.iterrows()
        ],
        costs=advice.costs,
        notes=advice.notes,
    )


def _verdict(advice: Advice, number: int) -> dict[str, str]:
    verdict, names = advice.verdicts[number], short_names(advice)
    regret = verdict.expected_regret
    answered = not verdict.abstained
    return {
        "ratio": f"{verdict.ratio:g}",
        "prune": names.get(verdict.epoch, "") if answered and verdict.epoch is not None else "no answer",
        "interval": f"{verdict.interval[0]:g} to {verdict.interval[1]:g}",
        "confidence": f"{verdict.confidence:.0%}" if answered else "",
        "regret": f"{regret[0]:.1f} ({regret[1]:.1f} to {regret[2]:.1f})" if answered and regret else "",
        "regime": (verdict.regime or "") if answered else "",
        "reason": verdict.reason, "rules": rules_in_words(advice, verdict),
        "fine_tuned": fine_tuned(advice, verdict),
        "next": verdict.would_change.removeprefix("Next: "),
        "settings": f"{verdict.settings}" if answered else "",
    }  # fmt: skip


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4g}"
