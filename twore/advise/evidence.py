"""From checkpoints to the tables that predictors read: twore.analysis.SettingTables of one setting.

`epoch` there is the checkpoint's position: its epoch, else its step, else 1, 2, 3, ... (Run.unit). A checkpoint at
position 0 is the initialisation: it is measured, and distances are from it, but nobody prunes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from twore.advise.cache import Cache
from twore.advise.cost import affordable_permutations, duration, seconds_of, spectral_operations
from twore.advise.finding import Found, Run
from twore.advise.reading import Opened
from twore.advise.trainer_state import metric_of
from twore.advise.weights import Measuring, mask_distances, movement, perturbations, spectra_key, spectra_of
from twore.analysis.regimes import selection_column
from twore.analysis.settings import SettingTables
from twore.metrics import rate_phase

Say = Callable[[str], object]


@dataclass
class Evidence:
    """What is known of a run's checkpoints; levels add to it.

    checkpoints  a row a checkpoint: path, epoch (position), step, lr, train_loss, valid_score, and weights-only metrics
    probes       a row a checkpoint and ratio: epoch, ratio, mask_distance, prune_perturbation, and pruned scores
    curves       a row a log entry with a learning rate: epoch, lr; empty where none is known
    cells        a row a fine-tuned cell: epoch, ratio, finetune_seed, score, valid_score; empty below the pilot
    unpruned     scores of the final checkpoint at ratio 0, by the names in probes; empty below the batches
    costs        a sentence a level: what it cost
    notes        a sentence each: what was left out or chosen
    """

    run: Run
    ratios: tuple[float, ...]
    checkpoints: pd.DataFrame
    probes: pd.DataFrame
    curves: pd.DataFrame
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    unpruned: dict[str, float] = field(default_factory=dict)
    metric: str | None = None
    costs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def candidates(self) -> list[float]:
        """Positions of the checkpoints that may be pruned."""
        return [one.position for one in self.run.checkpoints if not is_initial(one, self.run)]

    def setting(self) -> SettingTables:
        """The tables of the run, as the scoreboard's predictors take them."""
        grid = [(epoch, ratio) for ratio in self.ratios for epoch in self.candidates]
        results = pd.DataFrame(grid, columns=["epoch", "ratio"]).assign(finetune_seed=0, score=math.nan)
        if len(self.cells):  # `score` is then the score that choices are made on
            results = self.cells.assign(score=self.cells[selection_column(self.cells)])
            results = results[["epoch", "ratio", "finetune_seed", "score"]]
        probes = self.probes
        if self.unpruned and 0 not in self.ratios:
            probes = pd.concat([probes, pd.DataFrame([{"epoch": self.candidates[-1], "ratio": 0.0} | self.unpruned])])
        return SettingTables(
            name="your checkpoints",
            results=results,
            checkpoints=self.checkpoints.drop(columns="path"),
            curves=self.curves if len(self.curves) else None,
            probes=probes,
        )


def is_initial(one: Found, run: Run) -> bool:
    """Whether a checkpoint is the network before training."""
    return one.position == 0 and run.unit != "checkpoint"


def weights_evidence(
    run: Run, opened: Sequence[Opened], measuring: Measuring, cache: Cache, *, metric: str | None, say: Say
) -> Evidence:
    """Everything that weights, the Trainer's records and names say. `say` is told the cost beforehand."""
    started = time.monotonic()
    contents = [cache.contents(one.checkpoint) for one in opened]
    say(_price(opened, contents, measuring, cache))
    rows, probes = [], []
    for i, (one, own) in enumerate(zip(opened, contents)):
        row = spectra_of(one, own, measuring, cache)
        row["distance_from_init"] = movement(one, own, opened[0], contents[0], cache) if i else 0.0
        row["distance_from_previous"] = (
            movement(one, own, opened[i - 1], contents[i - 1], cache) if i else math.nan
        )  # fmt: skip
        rows.append(row)
        if is_initial(one.found, run):
            continue
        removed = perturbations(one, own, measuring.ratios, cache)
        before = opened[i - 1] if i and not is_initial(opened[i - 1].found, run) else None
        moved = mask_distances(one, own, before, contents[i - 1], measuring.ratios, cache) if before else {}
        probes += [
            {
                "epoch": one.found.position, "ratio": ratio,
                "mask_distance": moved.get(ratio, math.nan), "prune_perturbation": removed[ratio],
            }
            for ratio in measuring.ratios
        ]  # fmt: skip
    states = [one.state for one in run.checkpoints if one.state is not None]
    chosen = metric_of(states, metric)
    table = pd.DataFrame([_place(one, chosen) | row for one, row in zip(run.checkpoints, rows)])
    if table["lr"].notna().all():
        table.insert(list(table.columns).index("lr") + 1, "rate_phase", rate_phase(table["lr"].tolist()))
    return Evidence(
        run=run, ratios=measuring.ratios, checkpoints=table, probes=pd.DataFrame(probes), curves=_curves(run),
        metric=None if chosen is None else chosen[0],
        costs=[f"weights: {duration(time.monotonic() - started)}, no data, one matrix in memory at a time"],
        notes=[*run.notes, *_initial_note(run), *dict.fromkeys(note for one in opened for note in one.notes)],
    )  # fmt: skip


def measuring_for(
    opened: Sequence[Opened], ratios: tuple[float, ...], *, spectra: bool, permutations: int | None
) -> Measuring:
    """What to measure, with as many permutations as their cost allows where none are asked for."""
    number = affordable_permutations(opened[0].shapes.values()) if permutations is None else permutations
    return Measuring(ratios, spectra, number)


def _initial_note(run: Run) -> list[str]:
    return [
        f"{one.path.name} is taken for the network before training, which nobody prunes: if it is trained, count from 1"
        for one in run.checkpoints
        if is_initial(one, run)
    ]


def _price(opened: Sequence[Opened], contents: Sequence[str], measuring: Measuring, cache: Cache) -> str:
    new = [
        one
        for one, own in zip(opened, contents)
        if measuring.spectra and cache.find("spectra", spectra_key(one, own, measuring)) is None
    ]
    shapes = list(opened[0].shapes.values())
    entries = sum(math.prod(shape) for shape in shapes)
    words = f"weights: {len(opened)} checkpoints, {len(shapes)} layers of {entries:,} weights"
    if not measuring.spectra:
        return f"{words}; spectra are left out"
    seconds = seconds_of(spectral_operations(shapes) * (1 + measuring.permutations)) * len(new)
    price = f"about {duration(seconds)} for their spectra" if new else "their spectra are known"
    return f"{words}, {len(new)} of them not measured before: {price}, {measuring.permutations} random copies a layer"


def _place(one: Found, metric: tuple[str, float] | None) -> dict[str, object]:
    state = one.state
    score = math.nan
    if metric is not None and state is not None:
        score = metric[1] * state.evaluation.get(metric[0], math.nan)
    return {
        "path": str(one.path), "epoch": one.position, "step": one.step,
        "lr": math.nan if state is None else state.lr,
        "train_loss": math.nan if state is None else state.train_loss,
        "valid_score": score,
    }  # fmt: skip


def _curves(run: Run) -> pd.DataFrame:
    """The learning rate as it was logged, from the last checkpoint that has a log."""
    logs = [one.state for one in run.checkpoints if one.state is not None]
    if not logs or run.unit not in ("epoch", "step"):
        return pd.DataFrame(columns=["epoch", "lr"])
    entries = [entry for entry in logs[-1].history if run.unit in entry and "learning_rate" in entry]
    return pd.DataFrame(
        {"epoch": [float(e[run.unit]) for e in entries], "lr": [float(e["learning_rate"]) for e in entries]}
    )
