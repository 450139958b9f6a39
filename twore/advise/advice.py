"""The answer: for each ratio which checkpoint to prune, how sure that is, and what was measured; and its JSON form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from twore.advise.deciding import Verdict
from twore.advise.evidence import Evidence

TABLE_COLUMNS = ("path", "epoch", "step")  # of checkpoints: not metrics


@dataclass(frozen=True, eq=False)
class Advice:
    """What `advise` returns.

    verdicts     one a ratio, ascending: `Verdict` (twore.advise.deciding)
    checkpoints  a row a checkpoint in the order of training: path, epoch (position, see unit), step, and metrics
    probes       a row a checkpoint and ratio: epoch, ratio, and what was measured of the pruned checkpoint
    cells        a row a fine-tuned cell of the pilot; empty at the other levels
    level        "weights", "batches" or "pilot"
    unit         of positions: "epoch", "step" or "checkpoint" (1, 2, 3, ...)
    metric       the Trainer's evaluation that `valid_score` holds, None where there is none
    costs, notes a sentence each: what each level cost; what was left out or chosen
    """

    verdicts: tuple[Verdict, ...]
    checkpoints: pd.DataFrame
    probes: pd.DataFrame
    cells: pd.DataFrame
    level: str
    unit: str
    metric: str | None
    costs: tuple[str, ...]
    notes: tuple[str, ...]

    def path_of(self, position: float | None) -> str | None:
        """The checkpoint at a position."""
        if position is None:
            return None
        return str(self.checkpoints["path"].iloc[self._row(position)])

    def step_of(self, position: float) -> float:
        """What the JSON calls a step: optimizer updates where every checkpoint knows them, else the position."""
        if self.checkpoints["step"].isna().any():
            return _whole(position)
        return _whole(float(self.checkpoints["step"].iloc[self._row(position)]))

    def _row(self, position: float) -> int:
        """The row of the checkpoint nearest to a position: positions come back from tables as they went in."""
        return int(np.abs(self.checkpoints["epoch"].to_numpy(float) - position).argmin())

    def to_json(self) -> str:
        """One object: {"checkpoints": [...], "advice": [...]}; its fields are described in docs/advise.md."""
        found = {
            "checkpoints": [self._checkpoint(row) for _, row in self.checkpoints.iterrows()],
            "advice": [self._advice(verdict) for verdict in self.verdicts],
        }
        return json.dumps(found, indent=2, allow_nan=False)

    def to_text(self) -> str:
        """A table and a few lines for people."""
        from twore.advise.text import in_words

        return in_words(self)

    def figure(self) -> Figure:
        """What was measured along training, and the advised checkpoint of each ratio."""
        from twore.advise.figure import draw

        return draw(self)

    def to_html(self) -> str:
        """One self-contained page."""
        from twore.advise.page import render

        return render(self)

    def _checkpoint(self, row: pd.Series) -> dict[str, Any]:
        own = self.probes[self.probes["epoch"] == row["epoch"]]
        found: dict[str, Any] = {"path": row["path"], "step": self.step_of(row["epoch"])}
        if self.unit == "epoch":
            found["epoch"] = row["epoch"]
        found |= {str(name): _plain(value) for name, value in row.items() if name not in TABLE_COLUMNS}
        for name in own.columns.drop(["epoch", "ratio"]):
            found[name] = {f"{ratio:g}": _plain(value) for ratio, value in zip(own["ratio"], own[name])}
        return found

    def _advice(self, verdict: Verdict) -> dict[str, Any]:
        return {
            "ratio": verdict.ratio,
            "checkpoint": self.path_of(verdict.epoch),
            "interval": [self.step_of(verdict.interval[0]), self.step_of(verdict.interval[1])],
            "confidence": _plain(verdict.confidence),
            "abstained": verdict.abstained,
            "reason": verdict.reason,
            "trivial_rules": {rule: self.path_of(position) for rule, position in verdict.trivial_rules.items()},
        }


def advice_of(evidence: Evidence, verdicts: list[Verdict], level: str) -> Advice:
    """The answer from evidence and verdicts."""
    return Advice(
        verdicts=tuple(verdicts), checkpoints=evidence.checkpoints, probes=evidence.probes, cells=evidence.cells,
        level=level, unit=evidence.run.unit, metric=evidence.metric, costs=tuple(evidence.costs),
        notes=tuple(evidence.notes),
    )  # fmt: skip


def _whole(number: float) -> float | int:
    return int(number) if float(number).is_integer() else float(number)


def _plain(value: Any) -> float | int | None:
    """A JSON number; null for what is not known."""
    number = float(value)
    return None if not math.isfinite(number) else _whole(number) if isinstance(value, int) else number
