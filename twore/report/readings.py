"""What the figures say, in sentences computed from the tables: the page claims nothing that is not counted here.

Every function returns sentences in plain text. A gain is called clear when it exceeds two standard errors over the units
of replication (our choice; with two or three seeds that is a weak test, and the page says how many there were).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from twore.analysis import RegimeBoundary, mean_grid, optimal_epochs, regime_boundary
from twore.analysis.grid import one_setting
from twore.analysis.regimes import selection_column
from twore.report.diagrams import LOSS, similarity_grid
from twore.report.lines import distance_curve, distance_peak, optimum_and_range, rate_drops
from twore.report.tables import ScalingRow

SETTLED = 1.0  # points: a training curve has converged once it stays this close to its last score; our choice


@dataclass(frozen=True, eq=False)
class Findings:
    """What the grid of one setting says.

    best: a row a ratio, of `optimal_epochs` · line: of `regime_boundary` · heavy, light: the ratios of either regime; without
    a boundary the heaviest third and the rest · seeds: (dense seeds, fine-tune seeds) · chosen_on: column of the choice.
    """

    best: pd.DataFrame
    line: RegimeBoundary
    heavy: list[float]
    light: list[float]
    seeds: tuple[int, int]
    chosen_on: str


def findings(results: pd.DataFrame) -> Findings:
    """The findings of one setting."""
    table = one_setting(results)
    best = optimal_epochs(table)
    line = regime_boundary(table, min_gain=LOSS)
    ratios = best["ratio"].tolist()
    heaviest = ratios[-max(1, len(ratios) // 3) :]
    heavy = [ratio for ratio in ratios if ratio >= line.upper] if line.upper is not None else heaviest
    light = [ratio for ratio in ratios if ratio not in heavy]
    seeds = (table["dense_seed"].nunique(), table["finetune_seed"].nunique())
    return Findings(best, line, heavy, light, seeds, selection_column(table))


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    line = found.line
    if line.upper is None:
        return f"Train to the end: at no prune ratio of this grid does stopping early gain {LOSS:g} points."
    if line.lower is None:
        return f"Stop early: already at the lightest ratio, {line.upper:.6g}, an earlier checkpoint is better than the last."
    if not any(_clear(row) for row in _rows(found, found.heavy)):
        return f"Perhaps stop early from prune ratio {line.upper:.6g} on; the gain is not clear of the spread over seeds."
    return f"Stop early when you prune {line.upper:.6g} of the weights or more; up to {line.lower:.6g}, train to the end."


def answer(found: Findings) -> list[str]:
    """The sentences under the headline: both regimes, the uncertainty, and what was averaged."""
    line, best = found.line, found.best
    last = best["final_epoch"].iloc[0]
    said = []
    if line.upper is None:
        top = line.gains.dropna()
        said.append(
            f"Two regimes do not show here: the largest gain over the last checkpoint (epoch {last:g}) is "
            f"{_points(top.max())} at ratio {top.idxmax():.6g}, less than {LOSS:g}."
            if len(top) else f"The last checkpoint (epoch {last:g}) was not scored yet at any ratio, so no gain can be given."
        )  # fmt: skip
    else:
        if line.lower is not None:
            said.append(f"Regime I, up to ratio {line.lower:.6g}: the last checkpoint (epoch {last:g}) is less than "
                        f"{LOSS:g} points below the best one; {_range_of_epochs(found, found.light)}.")  # fmt: skip
        said.append(f"Regime II, from ratio {line.upper:.6g} on: {_range_of_epochs(found, found.heavy)}. {optimum_sentence(found, found.heavy[-1])}")
        said.append(_direction(found))
        weak = [ratio for ratio in found.heavy if not line.gains[ratio] >= LOSS]
        if weak:
            said.append(f"The line is not clean: at the heavier ratio{_s(weak)} {_list(weak)} the gain is below {LOSS:g} points again.")
    said.append(_certainty(found))
    return [sentence for sentence in said if sentence]


def averages(found: Findings) -> str:
    """What a number on the page is a mean of, and on which scores the choice was made."""
    dense, finetune = found.seeds
    seeds = f"{finetune} fine-tune seed{'s' * (finetune > 1)} and {dense} dense seed{'s' * (dense > 1)}"
    mean = "Every score is a mean over the fine-tune seeds of a dense run, then over the dense runs" if dense * finetune > 1 else "Every score is a single run"
    choice = (
        "Epochs are chosen on validation scores and reported on test scores."
        if found.chosen_on == "valid_score"
        else "Epochs are chosen and reported on the same scores, so the gains are somewhat optimistic: each is a maximum over epochs."
    )
    return f"{mean} (here: {seeds}). {choice}"


def optimum_sentence(found: Findings, ratio: float) -> str:
    """For one ratio: the best checkpoint, how far it is above the last one, and the spread of that."""
    row = _rows(found, [ratio])[0]
    if np.isnan(row["gain"]):
        return f"At ratio {ratio:.6g} the best checkpoint is epoch {row['epoch']:g}; the last one was not scored."
    if row["epoch"] == row["final_epoch"]:
        return f"At ratio {ratio:.6g} the best checkpoint is the last one, epoch {row['epoch']:g}."
    side = "above" if row["gain"] >= 0 else "below"
    return f"At ratio {ratio:.6g} the best checkpoint is epoch {row['epoch']:g}, {_points(abs(row['gain']))} {side} the last one{_spread(found, row)}."


def accuracy_reading(results: pd.DataFrame) -> list[str]:
    """Figure 2: the range of the scores."""
    cells = mean_grid(results).stack()
    (worst_ratio, worst_epoch), (top_ratio, top_epoch) = cells.idxmin(), cells.idxmax()
    return [
        f"Scores run from {cells.min():.1f} (ratio {worst_ratio:.6g}, epoch {worst_epoch:g}) "
        f"to {cells.max():.1f} (ratio {top_ratio:.6g}, epoch {top_epoch:g})."
    ]


def regimes_reading(found: Findings) -> list[str]:
    """Figure 3: the heaviest ratios one by one, then the light ones."""
    said = [optimum_sentence(found, ratio) for ratio in found.heavy[::-1][:3]]
    if found.light:
        said.append(f"At the light ratios ({_list(found.light)}) {_range_of_epochs(found, found.light)}.")
    return said


def scaling_reading(row: ScalingRow, each: dict[str, Findings]) -> str:
    """Figure 4: from which ratio on stopping early pays in each setting, and whether the line moves as the report found."""
    uppers = [each[setting].line.upper for setting in row.settings]
    parts = [f"{value:g}: " + ("nowhere" if u is None else f"from ratio {u:.6g}") if not isinstance(value, str)
             else f"{value}: " + ("nowhere" if u is None else f"from ratio {u:.6g}") for value, u in zip(row.values, uppers)]  # fmt: skip
    said = f"Stopping early gains {LOSS:g} points or more, by {row.label}: {'; '.join(parts)}."
    if row.column not in ("depth", "width", "data_percent"):
        return said
    steps = np.diff([2.0 if u is None else u for u in uppers])  # 2.0: beyond every ratio
    cause = "more data" if row.column == "data_percent" else "smaller models"
    if (steps <= 0).all() and (steps < 0).any():
        return f"{said} The line moves to lighter ratios with {cause}, as in the report."
    if not steps.any():
        return f"{said} The line does not move with {cause} on this grid of ratios."
    return f"{said} The line does not move steadily to lighter ratios with {cause}: the report's trend does not show here."


def epoch_trend_reading(results: pd.DataFrame, row: ScalingRow, ratios: list[float]) -> str:
    """Figure 5: the optimal epoch in the first and the last setting of a row, at each heavy ratio."""
    ends = [(ratio, *(optimum_and_range(results[results["setting"] == s], ratio) for s in (row.settings[0], row.settings[-1])))
            for ratio in ratios]  # fmt: skip
    ends = [end for end in ends if np.isfinite([end[1][0], end[2][0]]).all()]
    moves = [f"{first[0]:g} to {last[0]:g} at ratio {ratio:.6g}" for ratio, first, last in ends]
    earlier = sum(last[0] < first[0] for _, first, last in ends)
    apart = sum(last[2] < first[1] for _, first, last in ends)
    said = f"From {row.label} {row.values[0]} to {row.values[-1]} the optimal epoch goes from {', '.join(moves)}"
    return f"{said}: earlier at {earlier} of {len(ends)} ratios, and at {apart} of them for every single seed."


def similarity_reading(pairs: pd.DataFrame, found: Findings) -> list[str]:
    """Figure 6: where model_similarity rises most between neighbouring ratios, and whether that is the boundary."""
    by_ratio = similarity_grid(pairs).mean(axis=1)
    if len(by_ratio) < 2:
        return ["With one ratio there is nothing to compare."]
    steps = by_ratio.diff().to_numpy()[1:]
    at = int(np.argmax(steps))
    if steps[at] <= 0:
        return ["model_similarity does not rise with the ratio at all, so it shows no transition line here."]
    low, high = by_ratio.index[at], by_ratio.index[at + 1]
    said = [f"Averaged over epochs, model_similarity rises most between ratios {low:.6g} and {high:.6g}, "
            f"from {by_ratio.iloc[at]:.2g} to {by_ratio.iloc[at + 1]:.2g} nats."]  # fmt: skip
    factors = by_ratio.to_numpy()[1:] / np.maximum(by_ratio.to_numpy()[:-1], 1e-12)
    most = int(np.argmax(factors))
    if most != at:
        said.append(f"In proportion it rises most between {by_ratio.index[most]:.6g} and {by_ratio.index[most + 1]:.6g} (x {factors[most]:.1f}).")
    line = found.line
    if line.upper is None:
        said.append("There is no boundary in the scores to compare that with.")
    elif np.isclose(high, line.upper, rtol=0, atol=1e-8):
        said.append("That is where stopping early starts to pay: the two lines coincide, as in the report.")
    else:
        said.append(f"Stopping early starts to pay at ratio {line.upper:.6g}: the two lines do not coincide here.")
    return said


def distance_reading(results: pd.DataFrame, checkpoints: pd.DataFrame, found: Findings, ratios: list[float]) -> list[str]:
    """Figure 7: where random_distance peaks, how sharply, and what pruning at that epoch costs and gains."""
    grid = mean_grid(results)
    epochs = list(grid.columns)
    peak = distance_peak(checkpoints, epochs)
    curve = distance_curve(checkpoints)
    pruned = curve[curve.index.isin(epochs)]
    fall, error = pruned.loc[peak, "value"] - pruned["value"].iloc[-1], pruned["stderr"].max()
    shape = "at the last checkpoint: it keeps growing" if peak == epochs[-1] else f"and then falls by {fall:.2g} (standard error of a value: {error:.1g})"
    said = [f"random_distance is largest at epoch {peak:g} {shape}."]
    hits = 0
    for ratio in ratios:
        row = _rows(found, [ratio])[0]
        steps = epochs.index(peak) - epochs.index(row["epoch"])
        hits += abs(steps) <= 1
        cost = grid.loc[row["ratio"], row["epoch"]] - grid.loc[row["ratio"], peak]
        if steps == 0:
            said.append(f"At ratio {ratio:.6g} that is the best epoch.")
        else:
            tie = ", though within one s.d. of the best," if peak in row["ties"] else ""
            where = f"{abs(steps)} checkpoint{'s' * (abs(steps) > 1)} {'later' if steps > 0 else 'earlier'} than the best ({row['epoch']:g})"
            said.append(f"At ratio {ratio:.6g} it is {where}{tie} and pruning there scores {_points(cost)} less.")
    verdict = "as in the report" if hits == len(ratios) else "the report found both aligned in every case"
    said.append(f"The two peaks lie within one checkpoint of each other at {hits} of {len(ratios)} ratios; {verdict}.")
    return said


def training_reading(curves: pd.DataFrame) -> list[str]:
    """Figure 10: the last values, when the score settled, and where the learning rate drops."""
    by_epoch = curves.groupby("epoch")[["train_loss", "score"]].mean()
    said = []
    scores = by_epoch["score"].dropna()
    if len(scores):
        away = scores.index[(scores - scores.iloc[-1]).abs() > SETTLED]
        settled = scores.index[0] if not len(away) else scores.index[scores.index.get_loc(away[-1]) + 1]
        said.append(f"The dense score ends at {scores.iloc[-1]:.1f} (epoch {scores.index[-1]:g}) and stays within {SETTLED:g} point of that from epoch {settled:g} on.")
    losses = by_epoch["train_loss"].dropna()
    if len(losses):
        said.append(f"The training loss ends at {losses.iloc[-1]:.3g}.")
    drops = rate_drops(curves)
    said.append(f"The learning rate drops after epoch{_s(drops)} {_list(drops)}." if drops else "The learning rate has no sudden drops.")
    return said


def _certainty(found: Findings) -> str:
    """How far the boundary is to be trusted, from the seeds there are."""
    dense, finetune = found.seeds
    if found.line.interval is None:
        return "There is one dense seed and one fine-tune seed, so the spread is unknown and chance cannot be ruled out."
    unit = "dense" if dense > 1 else "fine-tune"
    low, high = ("beyond the grid" if end == 1.0 else f"{end:.6g}" for end in found.line.interval)
    limits = "" if dense > 1 else " It says nothing about how dense runs differ: there is only one."
    clear = [row["ratio"] for row in _rows(found, found.heavy) if _clear(row)]
    gains = ""
    if found.line.upper is not None:
        gains = f" The gain exceeds two standard errors at {len(clear)} of the {len(found.heavy)} heavy ratio{_s(found.heavy)}."
    units = dense if dense > 1 else finetune
    place = f"at ratio {low}" if low == high and low != "beyond the grid" else low if low == high else f"between {low} and {high}"
    return f"Resampling the {units} {unit} seeds puts the first ratio that gains {LOSS:g} points {place} (90 % interval).{limits}{gains}"


def _direction(found: Findings) -> str:
    """Whether heavy ratios have their optimum earlier than light ones, as the two-regime model says."""
    if not found.light:
        return ""
    heavy = float(np.median([row["epoch"] for row in _rows(found, found.heavy)]))
    light = float(np.median([row["epoch"] for row in _rows(found, found.light)]))
    if heavy < light:
        return f"The best epoch is earlier at heavy ratios (median {heavy:g}) than at light ones (median {light:g}), as the two-regime model says."
    return f"But the best epoch is not earlier at heavy ratios (median {heavy:g}) than at light ones (median {light:g}): this is not the picture of the report."


def _range_of_epochs(found: Findings, ratios: list[float]) -> str:
    epochs = [row["epoch"] for row in _rows(found, ratios)]
    last = found.best["final_epoch"].iloc[0]
    if min(epochs) == max(epochs):
        return f"the best epoch is {epochs[0]:g} of {last:g}"
    return f"the best epochs are {min(epochs):g} to {max(epochs):g} of {last:g}"


def _rows(found: Findings, ratios: list[float]) -> list[pd.Series]:
    """The rows of `best` at these ratios, matched within 1e-9."""
    return [found.best.iloc[int(np.argmin(np.abs(found.best["ratio"].to_numpy() - ratio)))] for ratio in ratios]


def _clear(row: pd.Series) -> bool:
    """The gain exceeds two standard errors; False with one seed, when there is none to compare with."""
    return bool(row["units"] > 1 and row["gain"] > 2 * row["gain_sd"] / np.sqrt(row["units"]))


def _spread(found: Findings, row: pd.Series) -> str:
    if row["units"] < 2:
        return " (one seed, spread unknown)"
    unit = "dense" if found.seeds[0] > 1 else "fine-tune"
    return f" (s.d. over {row['units']} {unit} seeds {row['gain_sd']:.1f})"


def _points(value: float) -> str:
    text = f"{value:.1f}" if abs(value) >= 0.95 or value == 0 else f"{value:.2f}"
    return f"{text} point{'' if text == '1.0' else 's'}"


def _list(values: list[float]) -> str:
    texts = [f"{value:.6g}" for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _s(values: list[float]) -> str:
    return "s" if len(values) != 1 else ""
