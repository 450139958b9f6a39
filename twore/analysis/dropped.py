"""Predictors that were tried and are not recommended: on the board, so that whoever asks sees their numbers.

All start from the pruned network's score after recalibration. docs/predictors.md says what became of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd

from twore.analysis.candidates import AVERAGED, SCORE, THRESHOLDS
from twore.analysis.grid import mean_grid
from twore.analysis.pilots import GOLDEN, cells_share, shortlist_pilot
from twore.analysis.predictors import Picks
from twore.analysis.regimes import EXACT
from twore.analysis.rules import Predictor, axes, best_epochs, metric_grid, probe_cost, signal_rule, switched
from twore.analysis.settings import SettingTables
from twore.analysis.spared import BROKEN, cells_price, kept
from twore.analysis.tuning import choose_best, leave_one_out

APART = 2  # checkpoints between two of a shortlist of strangers: no neighbours
CELLS = 4  # fine-tuned cells of a search that starts at a peak, as many as the shorter golden section's


def dropped(settings: Sequence[SettingTables]) -> list[Predictor]:
    """Those that some setting has the tables for."""
    if not any(s.probes is not None and SCORE in s.probes.columns for s in settings):
        return []
    probe = _probe()
    found = [search_from_peak(probe), shortlist_pilot(probe, apart=APART), outer_pilot()]
    if any(s.probes is not None and AVERAGED in s.probes.columns for s in settings):
        found += [both_probes(), both_probes(ranks=True)]
    with suppress(ValueError):  # one cluster only: nothing to learn from
        found.append(tuned_switch(settings))
    return found


def both_probes(*, ranks: bool = False) -> Predictor:
    """Largest mean of the checkpoint's and the moving average's recalibrated score; ranks: of their ranks instead."""

    def signal(setting: SettingTables) -> pd.DataFrame | None:
        grids = [metric_grid(setting, column, table="probes") for column in (SCORE, AVERAGED)]
        if grids[0] is None or grids[1] is None:
            return None
        one, other = (grid.rank(axis=1) if ranks else grid for grid in grids if grid is not None)
        return (one + other) / 2

    name = f"largest mean {'rank' if ranks else 'value'} of {SCORE} and {AVERAGED}"
    return Predictor(name, "a few batches", lambda s: best_epochs(signal(s)), lambda s: 2 * probe_cost(s), signal)


def outer_pilot(best: int = 3) -> Predictor:
    """A spared pilot at the lightest and the heaviest ratio where pruning breaks the final checkpoint; those between
    take the pick of the nearer one in ln density, the lighter one's where both are equally near."""
    probe = _probe()
    pilot, price = shortlist_pilot(probe, best=best), cells_price(probe, best=best)

    def broken(setting: SettingTables) -> list[float] | None:
        share = kept(setting)
        return None if share is None else sorted(ratio for ratio, own in share.items() if own < BROKEN)

    def pick(setting: SettingTables) -> Picks | None:
        ratios, picks = broken(setting), pilot.pick(setting)
        if ratios is None or picks is None:
            return None
        final = float(axes(setting)[1][-1])
        ends = {r: min((ratios[0], ratios[-1]), key=lambda end: abs(np.log1p(-end) - np.log1p(-r))) for r in ratios}
        return {ratio: picks[ends[ratio]] if ratio in ends else final for ratio in picks}

    def cost(setting: SettingTables) -> float:
        ratios = broken(setting)
        return float("nan") if ratios is None else price(setting, {*ratios[:1], *ratios[-1:]}) + probe_cost(setting)

    name = f"pilot of {best + 1} at the lightest and the heaviest ratio that break the final checkpoint"
    return Predictor(name, "pilot", pick, cost)


def search_from_peak(rule: Predictor, cells: int = CELLS) -> Predictor:
    """Golden-section search over the checkpoints of each ratio that begins where a rule's signal is largest."""

    def pick(setting: SettingTables) -> Picks | None:
        peaks = rule.pick(setting)
        if peaks is None:
            return None
        grid = mean_grid(setting.results)
        picks = {}
        for ratio, values in zip(grid.index, grid.to_numpy(float)):
            there = np.flatnonzero(np.isfinite(values))
            peak = next(epoch for at, epoch in peaks.items() if abs(at - ratio) <= EXACT)
            start = int(np.argmin(np.abs(grid.columns.to_numpy(float)[there] - peak)))
            _, at = search_from(values[there], cells, start)
            picks[float(ratio)] = float(grid.columns[there[at]])
        return picks

    def cost(setting: SettingTables) -> float:
        ratios, epochs = axes(setting)
        return cells_share(setting, {float(r): epochs[:cells].tolist() for r in ratios}) + rule.cost_of(setting)

    return Predictor(f"golden section from {rule.name}, {cells} cells", "pilot", pick, cost)


def search_from(values: np.ndarray, cells: int, start: int) -> tuple[list[int], int]:
    """As `search_peak`, from a given first index: each next look is at the golden section of the wider side."""
    low, high, inner = -1, len(values), start
    seen = [start]
    while len(seen) < min(cells, len(values)) and high - low > 2:
        wide_right = high - inner >= inner - low
        step = max(1, round(GOLDEN * max(high - inner, inner - low)))
        other = min(inner + step, high - 1) if wide_right else max(inner - step, low + 1)
        seen += [] if other in seen else [other]
        left, right = sorted((inner, other))
        if values[left] >= values[right] - EXACT:
            high, inner = right, left
        else:
            low, inner = left, right
    best = max(values[i] for i in seen)
    return seen, min(i for i in seen if values[i] >= best - EXACT)


def tuned_switch(settings: Sequence[SettingTables]) -> Predictor:
    """The final checkpoint where it keeps a recalibrated score, else the largest of it; the threshold is chosen on all
    settings but the one that is judged."""
    probe = _probe()
    rules = [switched(probe, SCORE, threshold=threshold) for threshold in THRESHOLDS]
    return leave_one_out(choose_best(rules), settings, name=f"switch to the final one by its {SCORE}, tuned elsewhere")


def _probe() -> Predictor:
    return signal_rule(SCORE, better="high", table="probes", needs="a few batches", cost=probe_cost)
