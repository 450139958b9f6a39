"""Predictors of our own that prune and probe, but fine-tune little or nothing: what the board judges beside the known.

All read probes.csv: the pruned network's score after BatchNorm recalibration (or rescaling), before fine-tuning. One
checkpoint's value is noisy, so it is averaged over neighbouring checkpoints, or ranked and averaged over neighbouring
ratios. Nothing here is fitted but `tuned_probe`, which goes on the board by leaving one setting out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd

from twore.analysis.pilots import shortlist_pilot
from twore.analysis.rules import (
    Predictor,
    best_epochs,
    metric_grid,
    probe_cost,
    readout_cost,
    signal_rule,
    switched,
)
from twore.analysis.settings import SettingTables
from twore.analysis.spared import PERFECT, SCORE, spared_pilot
from twore.analysis.tuning import choose_best, leave_one_out

AVERAGED, READOUT = "average_recalibrated_score", "readout_score"
WINDOW = 3  # checkpoints, or ratios, that are averaged; of a probe made before this code (smoothing over 3 epochs)
AT_CHANCE = 2.0  # times chance, below which a score says nothing; of the probe made before this code, on ten classes
THRESHOLDS = (60.0, 75.0, 90.0)  # percent right, from which the final checkpoint is taken; tried by tuned_probe


def candidates(settings: Sequence[SettingTables]) -> list[Predictor]:
    """The candidates that some setting has the tables for; the tuned one where settings are enough to leave one out."""
    if not any(s.probes is not None and SCORE in s.probes.columns for s in settings):
        return []
    smooth = smooth_probe()
    found = [smooth, ranked_probe(), shortlist_pilot(smooth), shortlist_pilot(smooth, best=1), spared_pilot()]
    if any(s.probes is not None and READOUT in s.probes.columns for s in settings):
        fallback = fallback_probe()
        found += [fallback, shortlist_pilot(fallback), smooth_readout()]
    with suppress(ValueError):  # one cluster only: nothing to learn from
        found.append(tuned_probe(settings))
    return found


def smooth_probe(column: str = SCORE, window: int = WINDOW) -> Predictor:
    """Largest `column` of the probes, averaged over `window` neighbouring checkpoints."""
    return signal_rule(
        column, better="high", table="probes", needs="a few batches", window=window,
        name=f"largest {column}, over {window} checkpoints", cost=probe_cost,
    )  # fmt: skip


def smooth_readout(window: int = WINDOW) -> Predictor:
    """Largest read-out score, averaged over `window` neighbouring checkpoints."""
    return signal_rule(
        READOUT, better="high", table="probes", needs="a few batches", window=window,
        name=f"largest {READOUT}, over {window} checkpoints", cost=readout_cost,
    )  # fmt: skip


def fallback_probe() -> Predictor:
    """Largest recalibrated score; at ratios where no checkpoint reaches AT_CHANCE times chance, largest read-out score.

    With few classes, where that is more than half-way from chance to perfect, half-way is the line instead.
    It costs what the read-outs do: the recalibrated score comes with the pass that gives them their features.
    """

    def signal(setting: SettingTables) -> pd.DataFrame | None:
        score, readout = (metric_grid(setting, column, table="probes") for column in (SCORE, READOUT))
        chance = metric_grid(setting, "chance", table="probes")
        if score is None or readout is None or chance is None:
            return None
        level = chance.max(axis=1)
        lost = score.max(axis=1) < np.minimum(AT_CHANCE * level, (level + PERFECT) / 2)
        return score.where(~lost, readout, axis=0)

    name = f"largest {SCORE}, {READOUT} where that is at chance"
    return Predictor(name, "a few batches", lambda s: best_epochs(signal(s)), readout_cost, signal)


def ranked_probe(column: str = SCORE) -> Predictor:
    """Largest rank of `column` among the checkpoints, averaged over neighbouring ratios."""

    def signal(setting: SettingTables) -> pd.DataFrame | None:
        grid = metric_grid(setting, column, table="probes")
        return None if grid is None else grid.rank(axis=1).rolling(WINDOW, center=True, min_periods=1).mean()

    name = f"largest {column}, ranks over {WINDOW} ratios"
    return Predictor(name, "a few batches", lambda s: best_epochs(signal(s)), probe_cost, signal)


def tuned_probe(settings: Sequence[SettingTables]) -> Predictor:
    """Signal, window and the switch to the final checkpoint, chosen on all settings but the one that is judged."""
    rules = [smooth_probe(column, window) for column in (SCORE, AVERAGED) for window in (1, WINDOW)]
    rules = [rule for rule in rules if all(rule.pick(setting) is not None for setting in settings)]
    switches = [switched(rule, SCORE, threshold=threshold) for rule in rules for threshold in THRESHOLDS]
    return leave_one_out(choose_best([*rules, *switches]), settings, name="probe tuned on the other settings")
