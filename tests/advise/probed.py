"""Made-up settings with probes, whose best epochs and signals are known, for the tests of deciding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from twore.advise.calibration import Band, Calibration, Level
from twore.analysis import SettingTables

EPOCHS = (4, 8, 12, 16, 20, 24)
LIGHT = (90.0, 94.0, 96.0, 97.0, 98.0, 98.2)  # settles at the end, keeps nearly all
HEAVY = (20.0, 30.0, 34.0, 30.0, 22.0, 18.0)  # peaks in the middle, keeps little
PROBES = {0.5: LIGHT, 0.9: HEAVY}


def probed(
    name="one", probes=PROBES, scores=None, *, epochs=EPOCHS, seeds=(0, 1), spread=0.2, dense=(0,), cluster=None
) -> SettingTables:
    """Probes of each ratio along the epochs; fine-tuned scores (default 60 + a third of the probes), the seeds apart by
    `spread` points, valid_score the same; checkpoints with powerlaw_alpha, smallest at the end, and a drop at 12."""
    scores = scores or {ratio: tuple(60 + value / 3 for value in row) for ratio, row in probes.items()}
    cells = pd.DataFrame([
        {"setting": name, "dense_seed": d, "epoch": e, "ratio": r, "finetune_seed": s,
         "valid_score": score + s * spread, "score": score + s * spread}
        for d in dense for r, row in scores.items() for e, score in zip(epochs, row) for s in seeds
    ])  # fmt: skip
    points = pd.DataFrame([
        {"setting": name, "dense_seed": d, "epoch": e, "lr": 0.1 if e <= 12 else 0.01, "valid_score": 50.0 + e,
         "powerlaw_alpha": 6 - e / 10, "key": f"{name}-{d}-{e}"}
        for d in dense for e in epochs
    ])  # fmt: skip
    rows = pd.DataFrame([
        {"setting": name, "dense_seed": d, "epoch": e, "ratio": r, "recalibrated_score": value, "cost": 0.1}
        for d in dense for r, row in probes.items() for e, value in zip(epochs, row)
    ])  # fmt: skip
    return SettingTables(name, cells, checkpoints=points, probes=rows, cluster=cluster)


def many(number=5, **changes) -> list[SettingTables]:
    """Independent settings that differ a little: the peak at 0.9 is where the probe says in all but every third."""
    made = []
    for i in range(number):
        rng = np.random.default_rng(i)
        probes = {r: tuple(np.clip(np.array(row) + rng.normal(0, 0.3, len(row)), 0, 100)) for r, row in PROBES.items()}
        heavy = (70.0, 72.0, 76.0, 73.0, 70.0, 68.0) if i % 3 else (76.0, 72.0, 71.0, 70.0, 70.0, 68.0)
        scores = {0.5: (80.0, 84.0, 87.0, 88.0, 89.0, 89.3), 0.9: heavy}
        made.append(probed(f"setting {i}", probes, scores, **changes))
    return made


def asked(setting: SettingTables) -> SettingTables:
    """As a user has it below the pilot: which cells there are, with scores that nobody knows."""
    grid = setting.results[["epoch", "ratio"]].drop_duplicates().assign(finetune_seed=0, score=np.nan)
    return replace(setting, results=grid)


def piloted(setting: SettingTables, cells: dict[float, list[float]]) -> SettingTables:
    """As a user has it after a pilot: the fine-tuned cells of one seed and no others."""
    own = setting.results[setting.results["finetune_seed"] == 0]
    wanted = [epoch in cells[ratio] for ratio, epoch in zip(own["ratio"], own["epoch"])]
    return replace(setting, results=own[wanted][["epoch", "ratio", "finetune_seed", "score"]])


def calibration(**changes) -> Calibration:
    """A made-up calibration in which every band is worth answering; changes: of the levels above weights."""
    level = Level(
        rule="any",
        cost=0.1,
        skill=(0.4, 0.2, 0.6),
        ratios=(0.3, 0.97),
        checkpoints=(5, 8),
        stop_below=0.3,
        train_from=0.6,
        bands=(band("broken", None, 0.5, 0.5), band("damaged", 0.5, 0.9, 0.6), band("intact", 0.9, None, 0.8)),
    )
    level = replace(level, **changes)
    weights = replace(level, skill=(0.0, -0.1, 0.1), bands=(band("all", None, None, 0.3),), stop_below=None)
    levels = {"weights": weights, "batches": level, "pilot of 2": level, "pilot of 3": level}
    return Calibration(levels, kinds=("batchnorm",), settings=5, clusters=4, dense_runs=10, made={})


def band(name: str, low: float | None, high: float | None, hits: float) -> Band:
    """Stated 0.1 below the share of hits, regret 1 - hits points, well below the final checkpoint's 2."""
    return Band(
        name, low, high, pairs=20, settings=5, clusters=4, hits=hits, confidence=round(hits - 0.1, 3),
        regret=(round(1 - hits, 3), 0.1, 1.0), trivial="final checkpoint", trivial_regret=2.0, width=0.5, coverage=0.8,
    )  # fmt: skip
