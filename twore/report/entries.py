"""The figures of a run in the report's order, each with its caption and reading, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from twore.report import findings as answers
from twore.report import readings
from twore.report.by_loss import loss_scores
from twore.report.diagrams import accuracy_diagram, normalised_diagram, scaling_diagrams, similarity_diagram
from twore.report.lines import optimal_epoch_lines, random_distance_lines, training_curve
from twore.report.schematic import two_regime_schematic
from twore.report.tables import RunTables, name_of, of_setting, reference, scaling_rows, settings
from twore.report.unit import NATS, Unit

MOST_PANELS, MOST_LINES = 6, 5  # heavy ratios shown in figure 7 and in figure 5: what stays legible


@dataclass(frozen=True, eq=False)
class Entry:
    """A figure of the page. number: as in the report, with a (vision) or b (translation) where it has both.

    caption: what is drawn · reading: what it says, sentences · skipped: why there is no figure, else None ·
    key: file name.
    """

    number: str
    key: str
    title: str
    caption: str
    reading: list[str]
    figure: Figure | None
    skipped: str | None = None


@dataclass(frozen=True)
class _Wanted:
    number: str
    key: str
    title: str
    caption: str
    missing: str | None  # the reason why it cannot be drawn
    draw: Callable[[], Figure]
    read: Callable[[], list[str]]


def entries(tables: RunTables) -> Iterator[Entry]:
    """The entries one after another, drawn as they are asked for: a figure is large, so save it before the next."""
    for want in _wanted(tables):
        drawn = want.missing is None
        yield Entry(
            number=want.number, key=want.key, title=want.title, caption=want.caption, skipped=want.missing,
            figure=want.draw() if drawn else None, reading=want.read() if drawn else [],
        )  # fmt: skip


def _wanted(tables: RunTables) -> list[_Wanted]:
    setting = reference(tables.results)
    label = tables.score_label
    unit = Unit(label)
    results = tables.results[tables.results["setting"] == setting]
    checkpoints, pairs, curves = (of_setting(t, setting) for t in (tables.checkpoints, tables.pairs, tables.curves))
    found = answers.findings(results)
    stars = _stars(found)
    rows = scaling_rows(tables.results)
    letter = "b" if "bleu" in label.lower() else "a"
    smoothed = " The training loss is a target token's, with its label smoothing." if letter == "b" else ""
    of = "" if len(settings(tables.results)) == 1 else f" Setting: {name_of(setting)}."
    alone = None if rows else _why_alone(tables.results)
    no_pairs = _lacking(pairs, "model_similarity", "pairs.csv", "it takes two fine-tune seeds of a cell")
    pruned = None if checkpoints is None else checkpoints[checkpoints["epoch"].isin(results["epoch"])]
    no_distance = _lacking(pruned, "random_distance", "checkpoints.csv", "measure the pruned checkpoints first")
    no_curve = _lacking(curves, "train_loss", "curves.csv", "it is written while the dense model trains")
    heavy = found.heavy[-MOST_PANELS:]
    bars = "Bars: range of the optima of single seeds."

    by_loss = _loss_diagrams(loss_scores(results, label), of)

    def frame(table: pd.DataFrame | None) -> pd.DataFrame:  # only called where the table was found
        assert table is not None
        return table

    return [
        _Wanted("1", "figure-1-schematic", "The two-regime model",
                "A drawing, not data: what the figures below would look like if the model held exactly.", None,
                two_regime_schematic, lambda: ["Compare it with figure 3, which is measured."]),
        _Wanted("2", "figure-2-scores", "Score of every cell",
                f"Each cell is one experiment: train, prune, fine-tune, score.{of}", None,
                lambda: accuracy_diagram(results, unit=unit), lambda: readings.accuracy_reading(results)),
        _Wanted(f"3{letter}", f"figure-3{letter}-regimes", "The two regimes",
                f"The same cells, each row minus its best, so that rows can be compared. {stars}{of}", None,
                lambda: normalised_diagram(results, unit=unit), lambda: readings.regimes_reading(found)),
        *by_loss[:1],
        _Wanted("4", "figure-4-scaling", "How the regimes move",
                "As figure 3, a panel a setting; all panels share one colour scale.", alone,
                lambda: scaling_diagrams(tables.results, rows, score_label=label),
                lambda: [readings.scaling_reading(row, _each(tables.results, row.settings)) for row in rows]),
        _Wanted("5", "figure-5-optimal-epoch", "Optimal epoch against the setting",
                f"Heavy ratios only. Lines: optimum of the mean over seeds. {bars}", alone,
                lambda: optimal_epoch_lines(tables.results, rows, found.heavy[-MOST_LINES:]),
                lambda: [readings.epoch_trend_reading(tables.results, row, found.heavy[-MOST_LINES:]) for row in rows]),
        _Wanted("6", "figure-6-similarity", "model_similarity and the boundary",
                "First: figure 3. Second: divergence between two fine-tunings of the same pruned model; larger is less "
                f"similar. {stars}{of}",
                no_pairs, lambda: similarity_diagram(results, frame(pairs), score_label=label),
                lambda: readings.similarity_reading(frame(pairs), found)),
        _Wanted("7", "figure-7-random-distance", "random_distance and the optimal epoch",
                "Heavy ratios. Blue: score, bars are its s.d. over seeds. Orange: random_distance, its band the "
                f"standard error over permutations.{of}",
                no_distance, lambda: random_distance_lines(results, frame(checkpoints), heavy, score_label=label),
                lambda: readings.distance_reading(results, frame(checkpoints), found, heavy)),
        _Wanted(f"8{letter}", f"figure-8{letter}-scores-optima", "Scores as they are, with the optima",
                f"Not normalised: figure 2 with the best epoch of each ratio. {stars}{of}", None,
                lambda: accuracy_diagram(results, unit=unit, optima=True),
                lambda: [answers.optimum_sentence(found, found.heavy[-1])]),
        *by_loss[1:],
        _Wanted("9", "figure-9-scaling-scores", "Scaling, scores as they are", "Figure 4, not normalised.", alone,
                lambda: scaling_diagrams(tables.results, rows, as_is=True, score_label=label),
                lambda: [_best_of_rows(tables.results)]),
        _Wanted("10", "figure-10-training", "Training curve",
                f"The dense model; bands: range over dense seeds.{smoothed}{of}",
                no_curve, lambda: training_curve(frame(curves), score_label=label),
                lambda: readings.training_reading(frame(curves))),
    ]  # fmt: skip


def _loss_diagrams(by_loss: pd.DataFrame | None, of: str) -> list[_Wanted]:
    """Figures 3 and 8 on the loss a token, beside BLEU, which is coarse for small models."""
    if by_loss is None:
        return []
    found = answers.findings(by_loss, unit=NATS)
    why = f"BLEU is coarse for small models; the loss is not. Lower is better. {_stars(found)}{of}"
    return [
        _Wanted("3b, loss", "figure-3b-loss-regimes", "The two regimes on the loss",
                f"Figure 3b on the loss, each row minus its best: {why}", None,
                lambda: normalised_diagram(by_loss, unit=NATS, title="Loss above the best of each ratio"),
                lambda: readings.regimes_reading(found)),
        _Wanted("8b, loss", "figure-8b-loss-optima", "The loss as it is, with the optima",
                f"Figure 8b on the loss: {why}", None,
                lambda: accuracy_diagram(by_loss, unit=NATS, title="Loss of the pruned model", optima=True),
                lambda: [answers.optimum_sentence(found, found.heavy[-1])]),
    ]  # fmt: skip


def _stars(found: answers.Findings) -> str:
    """What a star marks: readers wonder why it may miss the largest number of its row."""
    if found.chosen_on != "valid_score":
        return "A star marks the best epoch of a ratio."
    return (
        "A star marks the epoch that is best on validation; the numbers are test scores, whose best may lie elsewhere."
    )


def _each(results: pd.DataFrame, names: list[str]) -> dict[str, answers.Findings]:
    return {name: answers.findings(results[results["setting"] == name]) for name in names}


def _lacking(table: pd.DataFrame | None, column: str, name: str, way_out: str) -> str | None:
    """Why a figure cannot be drawn from this table; None when it can."""
    if table is None or table.empty:
        return f"{name} has no rows for this setting: {way_out}."
    if column not in table.columns or not table[column].notna().any():
        return f"{name} holds no {column}: {way_out}."
    return None


def _why_alone(results: pd.DataFrame) -> str:
    if len(settings(results)) == 1:
        return "there is one setting only; sweep model depth or data percent to compare."
    return "no two settings differ in one quantity alone."


def _best_of_rows(results: pd.DataFrame) -> str:
    """The best mean score over all cells of each setting."""
    best = {
        name: rows.groupby(["epoch", "ratio"])["score"].mean().max()
        for name, rows in results.groupby("setting", sort=False)
    }
    return (
        "Best score of each setting: "
        + "; ".join(f"{name_of(str(name))}: {value:.1f}" for name, value in best.items())
        + "."
    )
