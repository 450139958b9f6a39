"""The levels of evidence, and the scoreboard's predictor that answers at each: `advise` invents no rule of its own.

    weights   nothing but the checkpoints: the weights-only rule that loses least on the scoreboard, which has no skill
    batches   a few batches: the recalibrated pruned score of single checkpoints. On the scoreboard, averaged over three
              neighbouring ones is better for the mean of several dense runs; on one dense run, as a user has it, it is
              worse: how good that one checkpoint is, is then what one wants to know
    pilot     K fine-tuned cells a ratio: the K - 1 checkpoints whose recalibrated score is largest, and the final one

What each is worth: docs/predictors.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from twore.analysis.candidates import SCORE
from twore.analysis.grid import RATIO_TOLERANCE
from twore.analysis.pilots import shortlist_pilot, shortlisted
from twore.analysis.predictors import does_not_apply
from twore.analysis.rules import Predictor, axes, probe_cost, signal_rule, trivial_rules
from twore.analysis.settings import SettingTables

LEVELS = ("weights", "batches", "pilot")
DEFAULT_K = 3  # fine-tuned cells a ratio: the best pilot of that size on the scoreboard
WEIGHTS_METRIC, WEIGHTS_BETTER = "powerlaw_alpha", "low"  # loses least of the weights-only rules, without any skill


def rule_of(level: str, k: int | None = None) -> Predictor:
    """The scoreboard's predictor that answers at a level. k: of a pilot, cells a ratio, at least 2; default DEFAULT_K.

    ValueError for an unknown level, or a k below 2.
    """
    check_level(level)
    if level == "weights":
        return signal_rule(WEIGHTS_METRIC, better=WEIGHTS_BETTER)
    if level == "batches":
        return _probe()
    return shortlist_pilot(_probe(), best=cells_of(k) - 1)


def shortlist(setting: SettingTables, k: int | None = None) -> dict[float, list[float]]:
    """The cells that a pilot of k fine-tunes: {ratio: epochs, ascending}, k or fewer a ratio (the final checkpoint may
    be among the best).

    setting: with probes (`recalibrated_score`) and the asked (ratio, epoch) grid in its results.
    ValueError where there is no recalibrated score to shortlist by.
    """
    lists = shortlisted(_probe(), best=cells_of(k) - 1)(setting)
    if lists is None:
        raise ValueError("a pilot is shortlisted by the recalibrated score, and some ratio has none: probe it first")
    return lists


def unscored(setting: SettingTables, k: int | None = None) -> dict[float, int]:
    """How many cells of a pilot's shortlist are not among the setting's results, by ratio."""
    lists = shortlisted(_probe(), best=cells_of(k) - 1)(all_checkpoints(setting)) or {}
    found = {}
    for ratio, epochs in lists.items():
        own = setting.results[np.abs(setting.results["ratio"] - ratio) <= RATIO_TOLERANCE]
        found[ratio] = len(set(epochs) - set(own["epoch"].astype(float)))
    return found


def trivial_picks(setting: SettingTables) -> dict[float, dict[str, float]]:
    """What the rules of thumb say at each ratio: {ratio: {rule: epoch}}; rules that do not apply, and the random one,
    are left out."""
    ratios, _ = axes(setting)
    found: dict[float, dict[str, float]] = {float(ratio): {} for ratio in ratios}
    for rule in trivial_rules():
        picks = rule.pick(setting)
        if picks is None or does_not_apply(picks):
            continue
        for ratio, epoch in picks.items():
            if np.ndim(epoch) == 0:
                found[ratio][rule.name] = float(epoch)  # type: ignore[arg-type]
    return found


def all_checkpoints(setting: SettingTables) -> SettingTables:
    """The setting on the grid of its probes, as a rule without fine-tuning sees it: a pilot's results hold a few cells
    only, while the signal was measured at every checkpoint. The same setting where it has no probes."""
    if setting.probes is None:
        return setting
    ratios, _ = axes(setting)
    probed = replace(setting, results=setting.probes.assign(finetune_seed=0))
    epochs = np.union1d(axes(probed)[1], axes(setting)[1])
    grid = pd.MultiIndex.from_product([ratios, epochs], names=["ratio", "epoch"]).to_frame(index=False)
    return replace(setting, results=grid.assign(finetune_seed=0))


def cells_of(k: int | None) -> int:
    """Cells a ratio of a pilot; ValueError below 2, which would compare nothing."""
    if k is None:
        return DEFAULT_K
    if k < 2:
        raise ValueError(f"a pilot compares two fine-tuned checkpoints a ratio, or more: got {k}")
    return k


def check_level(level: str) -> None:
    """ValueError for a level that is none of LEVELS."""
    if level not in LEVELS:
        raise ValueError(f"the levels of evidence are {', '.join(LEVELS)}: got {level!r}")


def _probe() -> Predictor:
    return signal_rule(SCORE, better="high", table="probes", needs="a few batches", cost=probe_cost)
