"""What the grid of one setting says, and the sentences of the answer at the top of the page.

A gain is called clear when it exceeds two standard errors over the units of replication (our choice; with two or three
seeds that is a weak test, so the page says how many there were).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from twore.analysis import RegimeBoundary, optimal_epochs, regime_boundary
from twore.analysis.grid import one_setting
from twore.analysis.regimes import selection_column
from twore.report.diagrams import LOSS
from twore.report.unit import POINTS, Unit


@dataclass(frozen=True, eq=False)
class Findings:
    """What the grid of one setting says.

    best: a row a ratio, of `optimal_epochs` · line: of `regime_boundary` · heavy, light: the ratios of either regime;
    without a boundary the heaviest third and the rest · seeds: (dense seeds, fine-tune seeds) · chosen_on: column of
    the choice · unit: how sentences give amounts of the score.
    """

    best: pd.DataFrame
    line: RegimeBoundary
    heavy: list[float]
    light: list[float]
    seeds: tuple[int, int]
    chosen_on: str
    unit: Unit = POINTS

    def at(self, ratio: float) -> pd.Series:
        """The row of `best` at a ratio, matched to the nearest one."""
        return self.best.iloc[int(np.argmin(np.abs(self.best["ratio"].to_numpy() - ratio)))]

    @property
    def unknown(self) -> list[float]:
        """The ratios whose last checkpoint was not scored, so that their gain is not known."""
        return [float(ratio) for ratio in self.line.gains.index[self.line.gains.isna()]]

    @property
    def units(self) -> tuple[int, str]:
        """How many seeds carry the spread, and of which kind: "dense" with two dense runs or more, else "fine-tune"."""
        dense, finetune = self.seeds
        return (dense, "dense") if dense > 1 else (finetune, "fine-tune")


def findings(results: pd.DataFrame, *, unit: Unit = POINTS) -> Findings:
    """The findings of one setting."""
    table = one_setting(results)
    best = optimal_epochs(table)
    line = regime_boundary(table, min_gain=LOSS)
    ratios = best["ratio"].tolist()
    heavy = ratios[-max(1, len(ratios) // 3) :] if line.upper is None else [r for r in ratios if r >= line.upper]
    light = [ratio for ratio in ratios if ratio not in heavy]
    seeds = (table["dense_seed"].nunique(), table["finetune_seed"].nunique())
    return Findings(best, line, heavy, light, seeds, selection_column(table), unit)


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    line = found.line
    if line.upper is None and found.unknown:
        where = f"ratio{'s' * (len(found.unknown) > 1)} {listed(found.unknown)}"
        return f"No answer yet: the last checkpoint is not scored at {where}."
    if line.upper is None:
        return f"Train to the end: at no prune ratio of this grid does stopping early gain {LOSS:g} points."
    if line.lower is None:
        advice = f"Stop early: it pays already at the lightest ratio of this grid, {percent(line.upper)} pruned"
    else:
        advice = (
            f"Stop early when you prune {percent(line.upper)} of the weights or more; "
            f"up to {percent(line.lower)}, train to the end"
        )
    if found.units[0] < 2:
        return f"{advice}. One seed says so: check it with more."
    if not any(is_clear(found.at(ratio)) for ratio in found.heavy):
        return f"{advice}. The gain is not clear of the spread over seeds."
    return f"{advice}."


def answer(found: Findings) -> list[str]:
    """The sentences under the headline: both regimes, and how certain they are."""
    line = found.line
    last = found.best["final_epoch"].iloc[0]
    gains = line.gains.dropna()
    if gains.empty:
        return [f"The last checkpoint (epoch {last:g}) was not scored yet at any ratio, so no gain can be given."]
    if line.upper is None:
        regimes = [
            f"Two regimes do not show here: the largest gain over the last checkpoint (epoch {last:g}) is "
            f"{points(float(gains.max()))} at ratio {gains.idxmax():.6g}, less than {LOSS:g}."
        ]
    else:
        regimes = [
            f"Regime II, from ratio {line.upper:.6g} on: {range_of_epochs(found, found.heavy)}. "
            f"{optimum_sentence(found, found.heavy[-1])}"
        ]
        if line.lower is not None:
            regimes.insert(
                0,
                f"Regime I, up to ratio {line.lower:.6g}: the last checkpoint (epoch {last:g}) is less than {LOSS:g} "
                f"points below the best one; {range_of_epochs(found, found.light)}.",
            )
        regimes += _direction(found) + _not_clean(found)
    if found.unknown:
        ratios = f"ratio{'s' * (len(found.unknown) > 1)} {listed(found.unknown)}"
        regimes.append(f"At {ratios} the last checkpoint was not scored yet, so nothing is known of the gain there.")
    return [*regimes, _certainty(found)]


def averages(found: Findings) -> str:
    """What a number on the page is a mean of, and on which scores the choice was made."""
    dense, finetune = found.seeds
    seeds = f"{finetune} fine-tune seed{'s' * (finetune > 1)} and {dense} dense seed{'s' * (dense > 1)}"
    mean = "Every score is a single run"
    if dense * finetune > 1:
        mean = "Every score is a mean over the fine-tune seeds of a dense run, then over the dense runs"
    choice = (
        "Epochs are chosen and reported on the same scores, so the gains are somewhat optimistic: "
        "each is a maximum over epochs."
    )
    if found.chosen_on == "valid_score":
        choice = "Epochs are chosen on validation scores and reported on test scores."
    return f"{mean} (here: {seeds}). {choice}"


def optimum_sentence(found: Findings, ratio: float) -> str:
    """For one ratio: the best checkpoint, how far it is above the last one, and the spread of that."""
    row = found.at(ratio)
    best = f"At ratio {ratio:.6g} the best checkpoint is"
    if np.isnan(row["gain"]):
        return f"{best} epoch {row['epoch']:g}; the last one was not scored."
    if row["epoch"] == row["final_epoch"]:
        return f"{best} the last one, epoch {row['epoch']:g}."
    side = found.unit.side(row["gain"])  # the worse one: chosen on validation, and wrong on test
    units, seed = found.units
    sd = found.unit.number(row["gain_sd"])
    spread = f"s.d. over {units} {seed} seeds {sd}" if units > 1 else "one seed, spread unknown"
    return f"{best} epoch {row['epoch']:g}, {found.unit.amount(row['gain'])} {side} the last one ({spread})."


def range_of_epochs(found: Findings, ratios: list[float]) -> str:
    """Which epochs are the best at these ratios, of how many."""
    epochs = [found.at(ratio)["epoch"] for ratio in ratios]
    last = found.best["final_epoch"].iloc[0]
    if min(epochs) == max(epochs):
        return f"the best epoch is {epochs[0]:g} of {last:g}"
    return f"the best epochs are {min(epochs):g} to {max(epochs):g} of {last:g}"


def is_clear(row: pd.Series) -> bool:
    """The gain exceeds two standard errors; False with one seed, when there is none to compare with."""
    return bool(row["units"] > 1 and row["gain"] > 2 * row["gain_sd"] / np.sqrt(row["units"]))


def points(value: float) -> str:
    """A number of score points, with its unit."""
    return POINTS.amount(value)


def percent(ratio: float) -> str:
    """A ratio as a percentage: 90 %, the space unbreakable."""
    return f"{100 * ratio:.6g}\N{NO-BREAK SPACE}%"


def listed(values: list[float]) -> str:
    """Numbers as people list them: 0.2, 0.5 and 0.8."""
    texts = [f"{value:.6g}" for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _certainty(found: Findings) -> str:
    """How far the boundary is to be trusted, from the seeds there are."""
    units, unit = found.units
    if found.line.interval is None:
        return (
            "There is one dense seed and one fine-tune seed, so the spread is unknown and chance cannot be ruled out."
        )
    said = (
        f"Resampling the {units} {unit} seeds puts the first ratio that gains {LOSS:g} points "
        f"{interval_text(found.line.interval)} (90 % interval)."
    )
    if unit != "dense":
        said += " That leaves out how dense runs differ: there is only one."
    if found.line.upper is not None:
        clear = sum(is_clear(found.at(ratio)) for ratio in found.heavy)
        said += f" The gain exceeds two standard errors at {clear} of the {len(found.heavy)} ratios of Regime II."
    return said


def interval_text(interval: tuple[float, float]) -> str:
    """The interval of the boundary in words; 1.0 stands for a ratio beyond the grid."""
    low, high = ("beyond the grid" if end == 1.0 else f"{end:.6g}" for end in interval)
    if low != high:
        return f"between {low} and {high}"
    return low if interval[0] == 1.0 else f"at {low}"


def _direction(found: Findings) -> list[str]:
    """Whether heavy ratios have their optimum earlier than light ones, as the two-regime model says."""
    if not found.light:
        return []
    heavy, light = (float(np.median([found.at(r)["epoch"] for r in part])) for part in (found.heavy, found.light))
    if heavy < light:
        return [
            f"The best epoch is earlier at heavy ratios (median {heavy:g}) than at light ones (median {light:g}), "
            "as the two-regime model says."
        ]
    return [
        f"But the best epoch is not earlier at heavy ratios (median {heavy:g}) than at light ones (median {light:g}): "
        "this is not the picture of the report."
    ]


def _not_clean(found: Findings) -> list[str]:
    weak = [ratio for ratio in found.heavy if found.line.gains[ratio] < LOSS]
    if not weak:
        return []
    where = f"ratio{'s' * (len(weak) > 1)} {listed(weak)}"
    return [f"The line is not clean: at the heavier {where} the gain is below {LOSS:g} points."]
