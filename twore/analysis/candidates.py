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

from twore.analysis.pilots import cells_share, shortlist_pilot, shortlisted
from twore.analysis.predictors import Picks
from twore.analysis.rules import (
    Predictor,
    axes,
    best_epochs,
    metric_grid,
    probe_cost,
    readout_cost,
    signal_rule,
    switched,
)
from twore.analysis.settings import SettingTables
from twore.analysis.tuning import choose_best, leave_one_out

SCORE, AVERAGED, READOUT = "recalibrated_score", "average_recalibrated_score", "readout_score"
WINDOW = 3  # checkpoints, or ratios, that are averaged; of a probe made before this code (smoothing over 3 epochs)
LIGHT = 0.6  # ratio up to which pruning is taken to leave a network as it was: Regime I in every study here; our choice
PERFECT = 100.0  # percent right
BROKEN = 0.5  # share of its score that a final checkpoint keeps when pruned, below which it is broken; our choice
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


def spared_pilot(best: int = 3) -> Predictor:
    """A pilot only where pruning breaks the final checkpoint (it keeps less than BROKEN of its score); elsewhere the
    final checkpoint, and nothing is fine-tuned. best: so many by the recalibrated score of single checkpoints.
    """
    probe = signal_rule(SCORE, better="high", table="probes", needs="a few batches", cost=probe_cost)
    pilot, lists = shortlist_pilot(probe, best=best), shortlisted(probe, best=best)

    def pick(setting: SettingTables) -> Picks | None:
        share, picks = kept(setting), pilot.pick(setting)
        if share is None or picks is None:
            return None
        final = float(axes(setting)[1][-1])
        return {ratio: epoch if share[ratio] < BROKEN else final for ratio, epoch in picks.items()}

    def cost(setting: SettingTables) -> float:
        share, cells = kept(setting), lists(setting)
        if share is None or cells is None:
            return float("nan")
        return cells_share(setting, {r: own for r, own in cells.items() if share[r] < BROKEN}) + probe_cost(setting)

    return Predictor(f"pilot of {best + 1} where pruning breaks the final checkpoint, else that", "pilot", pick, cost)


def kept(setting: SettingTables) -> dict[float, float] | None:
    """Share of its recalibrated score that the final checkpoint keeps at each ratio, about [0, 1]; None without probes
    of it."""
    grid = metric_grid(setting, SCORE, table="probes")
    if grid is None or grid.iloc[:, -1].isna().any():
        return None
    whole = unpruned(setting)
    return {float(ratio): float(value) / whole for ratio, value in grid.iloc[:, -1].items()}  # type: ignore[arg-type]


def unpruned(setting: SettingTables) -> float:
    """Recalibrated score of the final checkpoint unpruned: that of its lightest probed ratio, where that is at most
    LIGHT (0 is the dense network itself), else PERFECT; mean over dense seeds."""
    probes = setting.probes
    if probes is None or SCORE not in probes.columns:
        return float("nan")
    last = probes[(probes["epoch"] == probes["epoch"].max()) & probes[SCORE].notna()]
    light = last[last["ratio"] <= LIGHT]
    return float(light[light["ratio"] == light["ratio"].min()][SCORE].mean()) if len(light) else PERFECT


def tuned_probe(settings: Sequence[SettingTables]) -> Predictor:
    """Signal, window and the switch to the final checkpoint, chosen on all settings but the one that is judged."""
    rules = [smooth_probe(column, window) for column in (SCORE, AVERAGED) for window in (1, WINDOW)]
    rules = [rule for rule in rules if all(rule.pick(setting) is not None for setting in settings)]
    switches = [switched(rule, SCORE, threshold=threshold) for rule in rules for threshold in THRESHOLDS]
    return leave_one_out(choose_best([*rules, *switches]), settings, name="probe tuned on the other settings")
