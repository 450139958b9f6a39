"""Predictors that fine-tune a few cells first: fixed pilots, golden section, and a shortlist made by a cheap signal.

A pilot is played on cells that were run anyway: it sees those of one fine-tune seed and takes the best of them, and is
scored on the other seeds (`scoreboard.py` sees to that), so it is never judged by the luck it was chosen for. Its cost
is the share of the cells it looked at, all fine-tune seeds of the grid counted.
Letters: R ratios, E epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from twore.analysis.grid import mean_grid
from twore.analysis.predictors import Picks
from twore.analysis.regimes import EXACT
from twore.analysis.rules import Predictor, axes, nearest
from twore.analysis.settings import SettingTables

Candidates = Callable[[SettingTables], "dict[float, list[float]] | None"]
GOLDEN = (3 - 5**0.5) / 2  # 0.382: where a golden section puts its first point


def fixed_pilot(shares: Sequence[float] = (0.25, 0.5, 1.0), *, name: str | None = None) -> Predictor:
    """The best of the checkpoints nearest to these shares of the budget, at each ratio."""
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares are parts of the budget, above 0 and at most 1: got {tuple(shares)}")

    def candidates(setting: SettingTables) -> dict[float, list[float]]:
        epochs = sorted({nearest(setting, share) for share in shares})
        return {float(ratio): epochs for ratio in axes(setting)[0]}

    words = ", ".join("final" if share == 1 else f"{100 * share:g} %" for share in shares)
    return _pilot(name or f"pilot of {len(shares)}: {words}", candidates)


def shortlist_pilot(
    rule: Predictor, *, best: int = 2, final: bool = True, apart: int = 1, name: str | None = None
) -> Predictor:
    """The best of a few checkpoints at each ratio: those where the rule's signal is largest, and the final one.

    rule: a predictor with a signal and needs other than "pilot" and "grid". The signal's own cost is added. apart:
    checkpoints from one of the best to the next at least; 1 allows neighbours.
    """
    far = f" at least {apart} apart" if apart > 1 else ""
    words = f"{best} best{far} by {rule.name}" + (", final" if final else "")
    candidates = shortlisted(rule, best=best, final=final, apart=apart)
    return _pilot(name or f"pilot of {best + final}: {words}", candidates, rule.cost_of)


def shortlisted(rule: Predictor, *, best: int = 2, final: bool = True, apart: int = 1) -> Candidates:
    """Which checkpoints of each ratio such a pilot fine-tunes: a function of the tables, {ratio: epochs ascending};
    None where the rule's signal is not there. Arguments as `shortlist_pilot`."""
    if rule.signal is None or rule.needs in ("pilot", "grid"):
        raise ValueError(f"a shortlist is made by a signal that needs no fine-tuning: {rule.name!r} is none")
    if best < 1:
        raise ValueError(f"best is a number of checkpoints, at least 1: got {best}")
    signal = rule.signal

    def candidates(setting: SettingTables) -> dict[float, list[float]] | None:
        grid = signal(setting)
        if grid is None:
            return None
        lists = {}
        for ratio, values in zip(grid.index, grid.to_numpy(float)):
            order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")  # ties: earliest first
            known: list[int] = []
            for i in order:
                if np.isfinite(values[i]) and len(known) < best and all(abs(i - j) >= apart for j in known):
                    known.append(int(i))
            chosen = {*known, len(values) - 1} if final else set(known)
            lists[float(ratio)] = [float(grid.columns[i]) for i in sorted(chosen)]
        return lists

    return candidates


def full_grid_pilot() -> Predictor:
    """Every checkpoint with one fine-tune seed: the noise floor of any choice by fine-tuning."""

    def candidates(setting: SettingTables) -> dict[float, list[float]]:
        ratios, epochs = axes(setting)
        return {float(ratio): epochs.tolist() for ratio in ratios}

    return _pilot("all checkpoints, one seed", candidates)


def golden_section(cells: int = 4) -> Predictor:
    """Golden-section search over the checkpoints of each ratio with so many fine-tuned cells, for one peak."""
    if cells < 2:
        raise ValueError(f"a golden section compares two cells at least: got {cells}")

    def pick(setting: SettingTables) -> Picks:
        grid = mean_grid(setting.results)
        picks = {}
        for ratio, values in zip(grid.index, grid.to_numpy(float)):
            there = np.flatnonzero(np.isfinite(values))  # checkpoints that were run at this ratio
            _, at = search_peak(values[there], cells)
            picks[float(ratio)] = float(grid.columns[there[at]])
        return picks

    def cost(setting: SettingTables) -> float:
        ratios, epochs = axes(setting)
        return cells_share(setting, {float(ratio): epochs[:cells].tolist() for ratio in ratios})

    return Predictor(f"golden section, {cells} cells", "pilot", pick, cost)


def search_peak(values: np.ndarray, cells: int) -> tuple[list[int], int]:
    """Golden-section search for the largest of `values` (E,), looking at no more than `cells` of them.

    Returns the indices looked at, in order, and the best of them (the earliest of exact ties). The bracket starts one
    step beyond either end, so that the first and the last checkpoint can be found too.
    """
    low, high = -1, len(values)
    seen: list[int] = []

    def look(i: int) -> float:
        if i not in seen:
            seen.append(i)
        return float(values[i])

    inner = min(low + max(1, round(GOLDEN * (high - low))), high - 1)
    look(inner)
    while len(seen) < min(cells, len(values)) and high - low > 2:
        other = low + high - inner  # the mirror image divides the bracket in the same proportion
        if other == inner:
            other = inner + 1 if inner + 1 < high else inner - 1
        left, right = sorted((inner, other))
        if look(left) >= look(right) - EXACT:
            high, inner = right, left
        else:
            low, inner = left, right
    best = max(values[i] for i in seen)
    return seen, min(i for i in seen if values[i] >= best - EXACT)


def default_pilots() -> list[Predictor]:
    """The pilots that need no signal."""
    return [fixed_pilot(), golden_section(4), golden_section(5), full_grid_pilot()]


def cells_share(setting: SettingTables, lists: dict[float, list[float]]) -> float:
    """Share of the setting's cells: these of each ratio with one fine-tune seed, of all with all."""
    ratios, epochs = axes(setting)
    seeds = setting.results["finetune_seed"].nunique()
    return sum(len(chosen) for chosen in lists.values()) / (len(ratios) * len(epochs) * seeds)


def _pilot(
    name: str,
    candidates: Candidates,
    extra: Callable[[SettingTables], float] = lambda setting: 0.0,
) -> Predictor:
    """The best of each ratio's candidates, the earliest of exact ties; candidates that were not run are passed over."""

    def pick(setting: SettingTables) -> Picks | None:
        lists = candidates(setting)
        if lists is None:
            return None
        grid = mean_grid(setting.results)
        picks = {}
        for ratio, epochs in lists.items():
            row = grid.iloc[int(np.argmin(np.abs(grid.index.to_numpy(float) - ratio)))].reindex(epochs).dropna()
            if row.empty:
                return None
            values = row.to_numpy(float)
            picks[ratio] = float(row.index[int(np.argmax(values >= values.max() - EXACT))])
        return picks

    def cost(setting: SettingTables) -> float:
        lists = candidates(setting)
        return np.nan if lists is None else cells_share(setting, lists) + extra(setting)

    return Predictor(name, "pilot", pick, cost)
