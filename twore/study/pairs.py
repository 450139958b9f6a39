"""Metrics between fine-tuned models of one pruned checkpoint: a row of pairs.csv a pair of seeds, and their mean.

model_similarity, agreement   report eq. 1 and the share of equal predictions, over the training set
with Study.landscape also
cka                           debiased linear CKA of the centred logits, over the training set
loss_barrier, score_barrier, loss_lmc, score_lmc   linear mode connectivity on the probe batches, BatchNorm
                              re-estimated at every point (tasks with `targets`)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from twore.metrics import CkaAccumulator, PairAccumulator, centred_logits, mode_connectivity, projected
from twore.study.pruned_scores import right
from twore.study.specs import Study
from twore.tasks.base import TaskData

POINTS = 5  # of the line between two models, ends included; our choice: the barrier sits near the middle
MOST_CLASSES = 512  # wider outputs (a vocabulary) are projected to so many features, or CKA's sums would not fit


@torch.no_grad()
def pair_rows(models: Mapping[int, nn.Module], data: TaskData, study: Study) -> list[dict[str, Any]]:
    """One pass over the training set with all models (fine-tune seed -> model); a row a pair, and their mean."""
    seeds = list(models)
    pairs = [(a, b) for i, a in enumerate(seeds) for b in seeds[i + 1 :]]
    alike = {pair: PairAccumulator() for pair in pairs}
    cka = {pair: CkaAccumulator() for pair in pairs} if study.landscape else {}
    with study.numerics.autocast():
        for batch in data.plain():
            outputs = {seed: data.outputs(model, batch) for seed, model in models.items()}
            for (a, b), total in alike.items():
                total.add(outputs[a], outputs[b])
            features = {seed: _features(p) for seed, p in outputs.items()} if cka else {}
            for (a, b), sums in cka.items():
                sums.add(features[a], features[b])
    rows: list[dict[str, Any]] = []
    for a, b in pairs:
        row = {"pair": f"{a}-{b}", **alike[a, b].result()}
        if study.landscape:
            row |= {"cka": cka[a, b].result()} | _connectivity(models[a], models[b], data, study)
        rows.append(row)
    means = {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0] if name != "pair"}
    return [*rows, {"pair": "mean", **means}]


def _features(p: Tensor) -> Tensor:
    logits = centred_logits(p)
    return logits if logits.shape[1] <= MOST_CLASSES else projected(logits, MOST_CLASSES)


def _connectivity(a: nn.Module, b: nn.Module, data: TaskData, study: Study) -> dict[str, float]:
    """Barriers on the line between two models; nothing for a task that does not say what is right."""
    if not hasattr(data, "targets"):
        return {}
    batches = list(islice(data.plain(), max(1, study.probe_batches)))

    def forward(model: nn.Module, batch: Any) -> Any:
        with study.numerics.autocast():
            return data.outputs(model, batch)

    found = mode_connectivity(
        a, b, lambda model: right(model, data, batches, study.numerics), batches=batches, forward=forward, points=POINTS
    )
    return {name: getattr(found, name) for name in ("loss_barrier", "score_barrier", "loss_lmc", "score_lmc")}
