"""Probes: what can be known of a pruned checkpoint before it is fine-tuned; a row of probes.csv a checkpoint and ratio.

    pruned_score, pruned_loss              of the pruned network as it is, on the first training batches
    recalibrated_score, recalibrated_loss  after BatchNorm recalibration, or, without BatchNorm, after rescaling every
                                           pruned layer's outputs to the dense network's mean and deviation
    readout_score, readout_loss            of the repaired network with its last linear layer fitted anew
                                           (twore.study.readout), cross-validated; pruned_readout_... before the repair
    average_recalibrated_score, ..._loss   the same of the moving average kept beside the checkpoint, where there is one
    prune_perturbation, mask_distance      from weights alone; mask_distance is to the pruned checkpoint before
    cost                                   of recalibrated_score, as a share of fine-tuning one cell: the passes that it
                                           counts (repair and score, forward only) over three an example and epoch;
                                           for translation, target tokens over the padded tokens of an epoch
    readout_cost                           the same of readout_score: one pass more, for the algebra (an upper bound for
                                           networks of more than a few layers)
    chance                                 percent right of whoever says the commonest class

Scores are percent right (of examples, or of target tokens with teacher forcing), losses are nats (squared errors of the
read-out), both on training data without augmentation. They take a task whose data say what is right (`targets`, see
twore.tasks.base); the weights-only ones are there for every task. A small fraction of what fine-tuning one cell costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from twore.metrics import mask_distance, prune_perturbation
from twore.study.context import Context, check_data, data_of, provenance
from twore.study.pruned_scores import prunable, pruned_scores, repair, scoring_of
from twore.study.readout import chance, readout_scores
from twore.study.specs import Group, Study, Trajectory
from twore.study.store import Store
from twore.tasks.base import TaskData
from twore.training.state import load_weights

MEASURED = ("score", "loss")
PASSES, TRAINING = 2, 3  # forward passes over an example: to repair and to score it; to train on it (as study.cost)
ALGEBRA = 1  # passes that a read-out's Gram matrix, solution and scores are counted as; our choice, an upper bound
Load = Callable[[Context, Trajectory, int], nn.Module]  # a dense checkpoint, computed again where it is damaged


def probed(store: Store, group: Group) -> bool:
    """Whether the group's probe is there, or not asked for."""
    return not group.trajectory.study.probe_batches or store.get("probes", group.probe_key) is not None


@torch.no_grad()
def probe(context: Context, group: Group, load: Load) -> None:
    """Measure one pruned checkpoint."""
    store, study = Store(context.out), group.trajectory.study
    if probed(store, group):
        return
    started = time.monotonic()
    dense = load(context, group.trajectory, group.epoch)
    record: dict[str, Any] = {
        "prune_perturbation": prune_perturbation(
            prunable(dense, study.pruning), group.ratio, allocation=study.pruning.allocation
        )
    }
    record["mask_distance"] = _mask_distance(context, group, dense, load)
    data = data_of(context, study)
    check_data(store, group.trajectory.key, data)
    if hasattr(data, "targets"):
        batches = list(islice(data.plain(), study.probe_batches))
        scoring = scoring_of(data, study.numerics)
        fitted = replace(scoring, readout=lambda model, seen: readout_scores(model, data, seen, study.numerics))
        record |= pruned_scores(dense, group.ratio, study.pruning, fitted, batches, seed=group.trajectory.seed)
        targets = torch.cat([data.targets(batch) for batch in batches])
        training = _training_passes(data, study)
        record |= {"cost": PASSES * len(targets) / training, "chance": chance(targets)}
        if "readout_score" in record:
            record["readout_cost"] = (PASSES + ALGEBRA) * len(targets) / training
        average = store.average(group.trajectory.key, group.epoch)
        if average.exists():
            smooth = study.task.build().to(context.device)
            load_weights(average, smooth)
            repair(smooth, None, (), scoring.forward, batches)
            found = pruned_scores(smooth, group.ratio, study.pruning, scoring, batches, seed=group.trajectory.seed)
            record |= {f"average_recalibrated_{name}": found[f"recalibrated_{name}"] for name in MEASURED}
    store.put("probes", group.probe_key, record | {"provenance": provenance(context, started)})


def _training_passes(data: TaskData, study: Study) -> float:
    """What fine-tuning one cell costs, in forward passes over an example (or target token); NaN without fine-tuning."""
    spec = study.finetune
    return TRAINING * spec.epochs * spec.batches_of(data.updates(spec.batch_size)) * spec.batch_size or math.nan


def _mask_distance(context: Context, group: Group, dense: nn.Module, load: Load) -> float:
    """To the mask of the pruned checkpoint before; NaN for the first one."""
    before = [epoch for epoch in group.trajectory.study.checkpoints if epoch < group.epoch]
    if not before:
        return math.nan
    previous = load(context, group.trajectory, max(before))
    study = group.trajectory.study
    return mask_distance(
        prunable(previous, study.pruning),
        prunable(dense, study.pruning),
        group.ratio,
        allocation=study.pruning.allocation,
    )
