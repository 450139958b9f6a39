"""What each figure says, in sentences computed from the tables: the page claims nothing that is not counted here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from twore.analysis import mean_grid
from twore.report.diagrams import LOSS, similarity_grid
from twore.report.findings import Findings, listed, optimum_sentence, points, range_of_epochs
from twore.report.lines import distance_curve, distance_peak, epochs_of, optimum_and_range, rate_drops, value_at
from twore.report.tables import ScalingRow, text_of

SETTLED = 1.0  # points: a training curve has converged once it stays this close to its last score; our choice


def accuracy_reading(results: pd.DataFrame) -> list[str]:
    """Figure 2: the range of the scores."""
    grid = mean_grid(results)
    values = grid.to_numpy(float)
    ends = [np.unravel_index(at, values.shape) for at in (np.nanargmin(values), np.nanargmax(values))]
    worst, top = (
        f"{values[i, j]:.1f} (ratio {grid.index[int(i)]:.6g}, epoch {grid.columns[int(j)]:g})" for i, j in ends
    )
    return [f"Scores run from {worst} to {top}."]


def regimes_reading(found: Findings) -> list[str]:
    """Figure 3: the heaviest ratios one by one, then the light ones."""
    said = [optimum_sentence(found, ratio) for ratio in found.heavy[::-1][:3]]
    if found.light:
        said.append(f"At the light ratios ({listed(found.light)}) {range_of_epochs(found, found.light)}.")
    return said


def scaling_reading(row: ScalingRow, each: dict[str, Findings]) -> str:
    """Figure 4: from which ratio on stopping early pays in each setting, and whether that moves as in the report."""
    uppers = [each[setting].line.upper for setting in row.settings]
    open_ends = [each[s].line.upper is None and bool(each[s].unknown) for s in row.settings]  # a study not yet complete
    where = [
        "not known yet" if unknown else "nowhere" if upper is None else f"from ratio {upper:.6g}"
        for upper, unknown in zip(uppers, open_ends)
    ]
    parts = "; ".join(f"{text_of(value)}: {place}" for value, place in zip(row.values, where))
    said = f"Stopping early gains {LOSS:g} points or more, by {row.label}: {parts}."
    if row.column not in ("depth", "width", "data_percent") or any(open_ends):
        return said  # the report makes no claim about other quantities
    steps = np.diff([2.0 if upper is None else upper for upper in uppers])  # 2.0: beyond every ratio
    cause = "more data" if row.column == "data_percent" else "smaller models"
    if not steps.any():
        return f"{said} The line does not move with {cause} on this grid of ratios."
    if (steps <= 0).all():
        return f"{said} The line moves to lighter ratios with {cause}, as in the report."
    return f"{said} The line does not move steadily to lighter ratios with {cause}: the report's trend does not show."


def epoch_trend_reading(results: pd.DataFrame, row: ScalingRow, ratios: list[float]) -> str:
    """Figure 5: the optimal epoch in the first and in the last setting of a row, at each heavy ratio."""
    first_rows, last_rows = (results[results["setting"] == row.settings[end]] for end in (0, -1))
    ends = [(ratio, optimum_and_range(first_rows, ratio), optimum_and_range(last_rows, ratio)) for ratio in ratios]
    ends = [end for end in ends if np.isfinite([end[1][0], end[2][0]]).all()]
    if not ends:
        return f"No heavy ratio was run at both ends of {row.label}."
    moves = ", ".join(f"{first[0]:g} to {last[0]:g} at ratio {ratio:.6g}" for ratio, first, last in ends)
    earlier = sum(last[0] < first[0] for _, first, last in ends)
    apart = sum(last[2] < first[1] for _, first, last in ends)  # even the latest seed before the earliest one
    span = f"{row.label}, {text_of(row.values[0])} to {text_of(row.values[-1])}"
    return (
        f"{span}: the optimal epoch goes from {moves}. It gets earlier at {earlier} of {len(ends)} ratios, "
        f"with ranges over seeds that do not overlap at {apart}."
    )


def similarity_reading(pairs: pd.DataFrame, found: Findings) -> list[str]:
    """Figure 6: where model_similarity rises most between neighbouring ratios, and whether that is the boundary."""
    by_ratio = similarity_grid(pairs).mean(axis=1)
    ratios, values = by_ratio.index.to_numpy(float), by_ratio.to_numpy(float)
    if len(values) < 2:
        return ["With one ratio there is nothing to compare."]
    at = int(np.argmax(np.diff(values)))
    if values[at + 1] <= values[at]:
        return ["model_similarity does not rise with the ratio at all, so it shows no transition line here."]
    said = [
        f"Averaged over epochs, model_similarity rises most between ratios {ratios[at]:.6g} and {ratios[at + 1]:.6g}, "
        f"from {values[at]:.2g} to {values[at + 1]:.2g} nats."
    ]
    factors = values[1:] / np.maximum(values[:-1], 1e-12)
    most = int(np.argmax(factors))
    if most != at:
        step = f"{ratios[most]:.6g} and {ratios[most + 1]:.6g}"
        said.append(f"In proportion it rises most between {step} (by a factor of {factors[most]:.1f}).")
    upper = found.line.upper
    if upper is None:
        said.append("There is no boundary in the scores to compare that with.")
    elif np.isclose(ratios[at + 1], upper, rtol=0, atol=1e-8):
        said.append("That is where stopping early starts to pay: the two lines coincide, as in the report.")
    else:
        said.append(f"Stopping early starts to pay at ratio {upper:.6g}: the two lines do not coincide here.")
    return said


def distance_reading(
    results: pd.DataFrame, checkpoints: pd.DataFrame, found: Findings, ratios: list[float]
) -> list[str]:
    """Figure 7: where random_distance peaks, how sharply, and what pruning at that epoch costs."""
    grid = mean_grid(results)
    epochs = epochs_of(grid)
    peak = distance_peak(checkpoints, epochs)
    curve = distance_curve(checkpoints)
    curve = curve[curve.index.isin(epochs)]
    fall = float(curve["value"].max() - curve["value"].iloc[-1])
    shape = f" and then falls by {fall:.2g} (standard error of a value: {curve['stderr'].max():.1g})"
    if peak == epochs[-1]:
        shape = ", the last checkpoint: it keeps growing"
    said = [f"random_distance is largest at epoch {peak:g}{shape}."]
    hits = 0
    for ratio in ratios:
        row = found.at(ratio)
        steps = epochs.index(peak) - epochs.index(row["epoch"])
        hits += abs(steps) <= 1
        said.append(_peak_sentence(row, ratio, steps, peak in row["ties"], value_at(grid, ratio, peak)))
    verdict = "as in the report" if hits == len(ratios) else "the report found both aligned in every case"
    said.append(f"The peaks lie within one checkpoint of each other at {hits} of {len(ratios)} ratios; {verdict}.")
    return said


def training_reading(curves: pd.DataFrame) -> list[str]:
    """Figure 10: the last values, when the score settled, and where the learning rate drops."""
    means = curves.groupby("epoch")[["train_loss", "score"]].mean()
    said = []
    scores = means["score"].dropna()
    if len(scores):
        epochs, values = scores.index.to_numpy(float), scores.to_numpy(float)
        away = np.flatnonzero(np.abs(values - values[-1]) > SETTLED)
        settled = epochs[away[-1] + 1] if len(away) else epochs[0]
        said.append(
            f"The dense score ends at {values[-1]:.1f} (epoch {epochs[-1]:g}) and stays within {SETTLED:g} point of "
            f"that from epoch {settled:g} on."
        )
    losses = means["train_loss"].dropna()
    if len(losses):
        said.append(f"The training loss ends at {losses.iloc[-1]:.3g}.")
    drops = rate_drops(curves)
    where = f"after epoch{'s' * (len(drops) > 1)} {listed(drops)}" if drops else ""
    said.append(f"The learning rate drops {where}." if drops else "The learning rate has no sudden drops.")
    return said


def _peak_sentence(row: pd.Series, ratio: float, steps: int, tied: bool, score: float) -> str:
    """For one ratio: how many checkpoints the peak lies off the optimum, and what pruning there costs."""
    if steps == 0:
        return f"At ratio {ratio:.6g} that is the best epoch."
    side = "later" if steps > 0 else "earlier"
    off = f"{abs(steps)} checkpoint{'s' * (abs(steps) > 1)} {side} than the best ({row['epoch']:g})"
    if np.isnan(score):
        return f"At ratio {ratio:.6g} it is {off}; that cell was not run."
    cost = float(row["score"]) - score
    tie = ", within one s.d. of it," if tied else ""
    change = "less" if cost >= 0 else "more"  # more: the best epoch was chosen on validation, and wrong on test
    return f"At ratio {ratio:.6g} it is {off}{tie} and pruning there scores {points(abs(cost))} {change}."
