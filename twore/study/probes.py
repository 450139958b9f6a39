"""Probes: what can be known of a pruned checkpoint before it is fine-tuned; a row of probes.csv a checkpoint and ratio.

    pruned_score, pruned_loss              of the pruned network as it is, on the first training batches
    recalibrated_score, recalibrated_loss  after BatchNorm recalibration, or, without BatchNorm, after rescaling every
                                           pruned layer's outputs to the dense network's mean and deviation
    average_recalibrated_score, ..._loss   the same of the moving average kept beside the checkpoint, where there is one
    prune_perturbation, mask_distance      from weights alone; mask_distance is to the pruned checkpoint before
    cost                                   of recalibrated_score, as a share of fine-tuning one cell: the passes that it
                                           counts (repair and score, forward only) over three an example and epoch;
                                           for translation, target tokens over the padded tokens of an epoch

Scores are percent right (of examples, or of target tokens with teacher forcing), losses are nats, both on training data
without augmentation. They take a task whose data say what is right (`targets`, see twore.tasks.base); the weights-only
ones are there for every task. A small fraction of what fine-tuning one cell costs.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from twore.metrics import mask_distance, prune_perturbation
from twore.pruning import (
    apply_masks,
    make_masks,
    output_statistics,
    prunable_weights,
    recalibrate_batchnorm,
    rescale_outputs,
)
from twore.study.context import Context, check_data, data_of, provenance
from twore.study.specs import Group, Study, Trajectory
from twore.study.store import Store
from twore.tasks.base import TaskData
from twore.training import Numerics
from twore.training.state import load_weights

MEASURED = ("score", "loss")
PASSES, TRAINING = 2, 3  # forward passes over an example: to repair and to score it; to train on it (as study.cost)
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
            _prunable(dense, group), group.ratio, allocation=study.pruning.allocation
        )
    }
    record["mask_distance"] = _mask_distance(context, group, dense, load)
    data = data_of(context, study)
    check_data(store, group.trajectory.key, data)
    if hasattr(data, "targets"):
        batches = list(islice(data.plain(), study.probe_batches))
        record |= _measured(dense, group, data, batches)
        scored = sum(len(data.targets(batch)) for batch in batches)
        record["cost"] = PASSES * scored / _training_passes(data, study)
        average = store.average(group.trajectory.key, group.epoch)
        if average.exists():
            smooth = study.task.build().to(context.device)
            load_weights(average, smooth)
            _repair(smooth, None, (), data, batches, study.numerics)
            found = _measured(smooth, group, data, batches)
            record |= {f"average_recalibrated_{name}": found[f"recalibrated_{name}"] for name in MEASURED}
    store.put("probes", group.probe_key, record | {"provenance": provenance(context, started)})


def right(model: nn.Module, data: Any, batches: list[Any], numerics: Numerics) -> dict[str, float]:
    """score: percent right; loss: mean cross-entropy in nats; of a model in eval mode, on these batches."""
    right, nats, count = 0.0, 0.0, 0
    with numerics.autocast():
        for batch in batches:
            p: Tensor = data.outputs(model, batch)  # (N, C)
            wanted: Tensor = data.targets(batch)  # (N,)
            right += float((p.argmax(1) == wanted).sum())
            nats -= float(p.gather(1, wanted[:, None]).clamp_min(1e-30).log().double().sum())
            count += len(wanted)
    return {"score": 100.0 * right / count, "loss": nats / count}


def _measured(dense: nn.Module, group: Group, data: TaskData, batches: list[Any]) -> dict[str, float]:
    """Score and loss of a network after pruning, before and after repair."""
    numerics = group.trajectory.study.numerics
    pruned = copy.deepcopy(dense).eval()
    weights = _prunable(pruned, group)
    masks = make_masks(
        {name: weight.detach() for name, weight in weights.items()}, group.ratio,
        score=group.trajectory.study.pruning.score, allocation=group.trajectory.study.pruning.allocation,
        seed=group.trajectory.seed,
    )  # fmt: skip
    apply_masks(pruned, masks)
    bare = right(pruned, data, batches, numerics)
    _repair(pruned, dense, tuple(masks), data, batches, numerics)
    repaired = right(pruned, data, batches, numerics)
    return {f"pruned_{k}": v for k, v in bare.items()} | {f"recalibrated_{k}": v for k, v in repaired.items()}


def _repair(
    model: nn.Module, dense: nn.Module | None, names: tuple[str, ...], data: TaskData, batches: list[Any],
    numerics: Numerics,
) -> None:  # fmt: skip
    """Fresh BatchNorm statistics; or, for a model without BatchNorm, the dense model's output statistics."""

    def forward(network: nn.Module, batch: Any) -> Any:
        with numerics.autocast():
            return data.outputs(network, batch)

    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        recalibrate_batchnorm(model, batches, forward)
    elif dense is not None:
        rescale_outputs(model, output_statistics(dense, batches[:1], forward, names), batches[:1], forward, names)


def _training_passes(data: TaskData, study: Study) -> float:
    """What fine-tuning one cell costs, in forward passes over an example (or target token); NaN without fine-tuning."""
    spec = study.finetune
    return TRAINING * spec.epochs * data.updates(spec.batch_size) * spec.batch_size or math.nan


def _mask_distance(context: Context, group: Group, dense: nn.Module, load: Load) -> float:
    """To the mask of the pruned checkpoint before; NaN for the first one."""
    before = [epoch for epoch in group.trajectory.study.checkpoints if epoch < group.epoch]
    if not before:
        return math.nan
    previous = load(context, group.trajectory, max(before))
    study = group.trajectory.study
    return mask_distance(
        _prunable(previous, group), _prunable(dense, group), group.ratio, allocation=study.pruning.allocation
    )


def _prunable(model: nn.Module, group: Group) -> dict[str, nn.Parameter]:
    spec = group.trajectory.study.pruning
    return prunable_weights(model, spec.kinds, include=spec.include or None, exclude=spec.exclude or None)
