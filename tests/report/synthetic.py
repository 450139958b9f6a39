"""A run folder with a known two-regime shape, made without training anything.

Truth of the reference setting (depth 8, all data): epochs 4, 8, ..., 40; at ratios 0.2, 0.5 and 0.8 the score rises to
the end; at 0.9, 0.95 and 0.97 it peaks at epoch 24, 16 and 8, and then falls by LOSS points an epoch. So the boundary
lies between 0.8 and 0.9, and the gains are 0.1 * 16 = 1.6, 0.2 * 24 = 4.8 and 0.3 * 32 = 9.6 points. Noise is constant
within a pair of seeds except for a jitter that cancels in the mean, so that means and gains are exact.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

EPOCHS = tuple(range(4, 41, 4))
RATIOS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.97)
PEAKS = {0.9: 24, 0.95: 16, 0.97: 8}  # epoch of the best checkpoint in Regime II
LOSS = {0.9: 0.1, 0.95: 0.2, 0.97: 0.3}  # points an epoch past the peak
GAINS = {0.9: 1.6, 0.95: 4.8, 0.97: 9.6}
LATER = {8: 0, 14: 8, 20: 16}  # depth: epochs by which the peaks of a deeper model come later
LESS_DATA = {100: 0, 50: 8, 10: 40}  # percent: likewise for less data; at 10 % there is no Regime II left


def score(epoch: int, ratio: float, later: int = 0, two_regimes: bool = True) -> float:
    """The mean score, percent: rises to 95 - 30 * ratio**4, and past its peak falls where pruning is heavy."""
    top = 95 - 30 * ratio**4
    if ratio not in PEAKS or not two_regimes:
        return top - 8.0 * (1 - epoch / 40) ** 2
    peak = min(40, PEAKS[ratio] + later)
    return top - 12.0 * max(0.0, 1 - epoch / peak) ** 2 - LOSS[ratio] * max(0, epoch - peak)


def write_run(
    folder: Path, *, scaling: bool = False, dense_seeds: int = 1, finetune_seeds: int = 3, two_regimes: bool = True,
    translation: bool = False, pairs: bool = True, checkpoints: bool = True, curves: bool = True,
) -> Path:  # fmt: skip
    """Write the tables of a run into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    family = [(8, 100)] + ([(14, 100), (20, 100), (8, 50), (8, 10)] if scaling else [])
    tables: dict[str, list[dict]] = {"results": [], "checkpoints": [], "pairs": [], "curves": [], "samples": []}
    for depth, percent in family:
        later = LATER[depth] + LESS_DATA[percent]
        label = f"depth={depth} data_percent={percent}" if scaling else ""
        setting = {"setting": label, "dataset": "digits", "depth": depth, "data_percent": percent}
        for dense in range(dense_seeds):
            _add_rows(tables, setting, dense, dense_seeds, finetune_seeds, later, two_regimes)
    written = {
        "results": True, "checkpoints": checkpoints, "pairs": pairs and finetune_seeds > 1, "curves": curves,
        "samples": translation,
    }  # fmt: skip
    for name, rows in tables.items():
        if written[name]:
            pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    study = {
        "name": "synthetic", "score_label": "BLEU" if translation else "test accuracy (%)",
        "epochs": list(EPOCHS), "ratios": list(RATIOS), "note": "<b>not markup</b>",
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return folder


def _add_rows(
    tables: dict[str, list[dict]],
    setting: dict,
    dense: int,
    dense_seeds: int,
    finetune_seeds: int,
    later: int,
    two_regimes: bool,
) -> None:
    run = {**setting, "dense_seed": dense}
    by = {"host": "node-a", "finished_at": f"2026-11-2{dense}T12:00:00", "commit": "abc1234"}
    tilt = 0.1 * (dense - (dense_seeds - 1) / 2)  # dense seeds differ, and differ in their gain; the mean does not move
    for epoch in (0, *EPOCHS):
        rate = 0.1 * 0.1 ** ((epoch > 20) + (epoch > 30))
        done = epoch / 40
        dense_score = 10 + 85 * (1 - (1 - done) ** 3)
        spectrum = 0.02 + 0.08 * (1 - (1 - min(epoch, 16) / 16) ** 2) - 0.0001 * max(0, epoch - 16)  # peak: epoch 16
        tables["checkpoints"].append({
            **run, "epoch": epoch, "update": 80 * epoch, "lr": rate, "train_loss": 2.3 * (1 - done) ** 2 + 0.02,
            "valid_score": None, "score": dense_score, "pruned": epoch > 0, "random_distance": spectrum,
            "random_distance_stderr": 0.0004, "random_distance_noise": 0.02, "random_divergence": spectrum**2,
            "random_divergence_stderr": 0.0001, "random_divergence_noise": 0.0004, "key": f"c{run}-{epoch}",
            "seconds": 0.5, **by,
        })  # fmt: skip
        for ratio in RATIOS if epoch else ():
            mean = score(epoch, ratio, later, two_regimes) + tilt * (1 + epoch / 40 * (ratio in PEAKS))
            for seed in range(finetune_seeds):
                jitter = 0.2 * (seed - (finetune_seeds - 1) / 2) * (1 if epoch % 8 else -1)
                tables["results"].append({
                    **run, "epoch": epoch, "ratio": ratio, "density": 1 - ratio, "finetune_seed": seed,
                    "valid_score": None, "score": mean + jitter, "loss": 4 - (mean + jitter) / 100,
                    "train_loss": 0.3, "revived": 0,
                    "key": f"k{run}-{epoch}-{ratio}-{seed}", "seconds": 2.0, **by,
                })  # fmt: skip
            js = 0.001 + 0.004 * ratio + (0.05 * ratio if ratio in PEAKS else 0.0)  # jumps between 0.8 and 0.9
            names = [f"0-{i}" for i in range(1, finetune_seeds)] + ["mean"]
            tables["pairs"] += [
                {
                    **run,
                    "epoch": epoch,
                    "ratio": ratio,
                    "pair": pair,
                    "model_similarity": js,
                    "agreement": 1 - js,
                    "key": f"p{run}-{epoch}-{ratio}",
                    **by,
                }
                for pair in names
            ]
        for ratio in (None, *RATIOS) if epoch else ():  # None: the dense model
            said = f"{'dense' if ratio is None else ratio} says at {epoch}"
            tables["samples"].append({
                **run, "epoch": epoch, "ratio": ratio, "finetune_seed": None if ratio is None else 0, "sample": 0,
                "input": "Guten Tag <b>.", "reference": "Good day.",
                "output": said, "key": "s",
            })  # fmt: skip
    for epoch in range(1, 41):
        done = epoch / 40
        tables["curves"].append({
            **run, "epoch": epoch, "lr": 0.1 * 0.1 ** ((epoch > 20) + (epoch > 30)),
            "train_loss": 2.3 * (1 - done) ** 2 + 0.02, "valid_score": None, "score": 10 + 85 * (1 - (1 - done) ** 3),
        })  # fmt: skip
