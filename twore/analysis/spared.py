"""Pilots that are spared where they cannot matter: only at ratios where pruning breaks the final checkpoint.

Elsewhere the final checkpoint is taken and nothing is fine-tuned. It is broken where its recalibrated score, pruned,
is less than BROKEN of what it is unpruned. So a spared pilot costs the probes of all ratios, and its own cells at those
where it is broken.
"""

from __future__ import annotations

from collections.abc import Callable

from twore.analysis.pilots import cells_share, shortlist_pilot, shortlisted
from twore.analysis.predictors import Picks
from twore.analysis.rules import Predictor, axes, metric_grid, probe_cost, signal_rule
from twore.analysis.settings import SettingTables

SCORE = "recalibrated_score"
LIGHT = 0.6  # ratio up to which pruning is taken to leave a network as it was: Regime I in every study here; our choice
PERFECT = 100.0  # percent right
BROKEN = 0.5  # share of its score that a final checkpoint keeps when pruned, below which it is broken; our choice

Price = Callable[
    [SettingTables, "set[float]"], float
]  # of a pilot at these ratios, as a share of the grid; NaN unknown


def spared_pilot(best: int = 3) -> Predictor:
    """A pilot of the final checkpoint and the `best` ones by the recalibrated score of single checkpoints, spared."""
    probe = signal_rule(SCORE, better="high", table="probes", needs="a few batches", cost=probe_cost)
    return spared(shortlist_pilot(probe, best=best), cells_price(probe, best=best), f"pilot of {best + 1}")


def spared(pilot: Predictor, price: Price, words: str) -> Predictor:
    """`pilot` where pruning breaks the final checkpoint, elsewhere the final checkpoint. words: how it is called."""

    def pick(setting: SettingTables) -> Picks | None:
        share, picks = kept(setting), pilot.pick(setting)
        if share is None or picks is None:
            return None
        final = float(axes(setting)[1][-1])
        return {ratio: epoch if share[ratio] < BROKEN else final for ratio, epoch in picks.items()}

    def cost(setting: SettingTables) -> float:
        share = kept(setting)
        if share is None:
            return float("nan")
        return price(setting, {ratio for ratio, own in share.items() if own < BROKEN}) + probe_cost(setting)

    return Predictor(f"{words} where pruning breaks the final checkpoint, else that", "pilot", pick, cost)


def cells_price(rule: Predictor, *, best: int) -> Price:
    """What the cells of a shortlist cost at some ratios."""
    lists = shortlisted(rule, best=best)

    def price(setting: SettingTables, ratios: set[float]) -> float:
        cells = lists(setting)
        if cells is None:
            return float("nan")
        return cells_share(setting, {ratio: own for ratio, own in cells.items() if ratio in ratios})

    return price


def kept(setting: SettingTables) -> dict[float, float] | None:
    """Share of its recalibrated score that the final checkpoint keeps at each ratio, about [0, 1]; None without probes
    of it, or where it scores nothing unpruned."""
    grid = metric_grid(setting, SCORE, table="probes")
    if grid is None or grid.iloc[:, -1].isna().any():
        return None
    whole = unpruned(setting, float(grid.columns[-1]))
    if not whole > 0:
        return None
    return {float(ratio): float(value) / whole for ratio, value in grid.iloc[:, -1].items()}  # type: ignore[arg-type]


def unpruned(setting: SettingTables, final: float | None = None) -> float:
    """Recalibrated score of the final checkpoint unpruned: that of its lightest probed ratio, where that is at most
    LIGHT (0 is the dense network itself), else PERFECT; mean over dense seeds. final: its epoch, default the last that
    was probed."""
    probes = setting.probes
    if probes is None or SCORE not in probes.columns:
        return float("nan")
    epoch = probes["epoch"].max() if final is None else final
    last = probes[(probes["epoch"] == epoch) & probes[SCORE].notna()]
    light = last[last["ratio"] <= LIGHT]
    return float(light[light["ratio"] == light["ratio"].min()][SCORE].mean()) if len(light) else PERFECT
