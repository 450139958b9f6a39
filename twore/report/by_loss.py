"""Translation's second opinion: what the loss a token says, beside BLEU, which is coarse for small models."""

from __future__ import annotations

import pandas as pd

from twore.report.diagrams import LOSS
from twore.report.findings import Findings, findings, optimum_sentence
from twore.report.unit import NATS


def loss_scores(results: pd.DataFrame, score_label: str) -> pd.DataFrame | None:
    """The results with the loss as score, in points of 0.01 nat, higher is better; None where a score is no BLEU."""
    if "bleu" not in score_label.lower() or "loss" not in results.columns:
        return None
    by_loss = results.drop(columns="valid_score", errors="ignore").assign(score=results["loss"] / NATS.point)
    if "valid_loss" in results.columns:
        by_loss["valid_score"] = results["valid_loss"] / NATS.point
    return by_loss


def loss_sentence(results: pd.DataFrame, score_label: str) -> list[str]:
    """From which ratio on stopping early pays by the loss; nothing where there is none."""
    by_loss = loss_scores(results, score_label)
    if by_loss is None:
        return []
    found: Findings = findings(by_loss, unit=NATS)
    least = NATS.amount(LOSS)
    if found.line.upper is None and found.unknown:
        return []  # the last checkpoint is not scored everywhere: too early to say that nothing is gained
    if found.line.upper is None:
        return [f"By the loss a token, which is finer than BLEU, no ratio gains {least} by stopping early."]
    return [
        f"By the loss a token, which is finer than BLEU, stopping early gains {least} or more from ratio "
        f"{found.line.upper:.6g} on. {optimum_sentence(found, found.heavy[-1])}"
    ]
