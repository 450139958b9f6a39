"""The score of a pruned network before fine-tuning, as it is and repaired: what `probes.py` and `twore.advise` share.

Repair re-estimates BatchNorm statistics; a network without BatchNorm has each pruned layer's outputs rescaled to the
dense one's mean and deviation instead (twore.pruning.rescale). It sees inputs only, and only the given batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from twore.pruning import (
    apply_masks,
    make_masks,
    output_statistics,
    prunable_weights,
    recalibrate_batchnorm,
    rescale_outputs,
)
from twore.pruning.spec import Pruning
from twore.training import Numerics

REPAIRS = ("batchnorm", "outputs")


@dataclass(frozen=True)
class Scoring:
    """How a network runs and what it scores: functions of (model in eval mode, one batch) and (model, batches)."""

    forward: Callable[[nn.Module, Any], Any]
    scores: Callable[[nn.Module, Sequence[Any]], Mapping[str, float]]  # "score" is higher for better networks
    readout: Callable[[nn.Module, Sequence[Any]], Mapping[str, float]] | None = None  # of a read-out fitted anew


def scoring_of(data: Any, numerics: Numerics) -> Scoring:
    """Of task data that say what is right (`targets`, twore.tasks.base): score in percent right, loss in nats."""

    def forward(model: nn.Module, batch: Any) -> Any:
        with numerics.autocast():
            return data.outputs(model, batch)

    return Scoring(forward, lambda model, batches: right(model, data, batches, numerics))


def right(model: nn.Module, data: Any, batches: Sequence[Any], numerics: Numerics) -> dict[str, float]:
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


@torch.no_grad()
def pruned_scores(
    dense: nn.Module, ratio: float, pruning: Pruning, scoring: Scoring, batches: Sequence[Any], *, seed: int = 0
) -> dict[str, float]:
    """Scores of the pruned network, before repair (pruned_score, ...) and after (recalibrated_score, ...).

    Where `scoring` has a readout, also those of a last layer fitted anew, before repair (pruned_readout_score, ...) and
    after (readout_score, ...).
    dense: not changed. seed: of pruning by random scores.
    """
    pruned = copy.deepcopy(dense).eval()
    weights = prunable(pruned, pruning)
    masks = make_masks(
        {name: weight.detach() for name, weight in weights.items()}, ratio,
        score=pruning.score, allocation=pruning.allocation, seed=seed,
    )  # fmt: skip
    apply_masks(pruned, masks)
    found = _named("pruned_", scoring.scores(pruned, batches))
    if scoring.readout is not None:
        found |= _named("pruned_readout_", scoring.readout(pruned, batches))
    repair(pruned, dense, tuple(masks), scoring.forward, batches)
    found |= _named("recalibrated_", scoring.scores(pruned, batches))
    if scoring.readout is not None:
        found |= _named("readout_", scoring.readout(pruned, batches))
    return found


@torch.no_grad()
def repair(
    model: nn.Module,
    dense: nn.Module | None,
    names: Sequence[str],
    forward: Callable[[nn.Module, Any], Any],
    batches: Sequence[Any],
) -> None:
    """Fresh BatchNorm statistics; or, for a model without BatchNorm, the dense model's output statistics.

    names: the pruned weights. dense: None leaves a model without BatchNorm as it is.
    """
    if repair_of(model) == "batchnorm":
        recalibrate_batchnorm(model, batches, forward)
    elif dense is not None:
        rescale_outputs(model, output_statistics(dense, batches[:1], forward, names), batches[:1], forward, names)


def repair_of(model: nn.Module) -> str:
    """Which of REPAIRS a network gets: "batchnorm" where it has such a layer, else "outputs"."""
    return "batchnorm" if any(isinstance(module, _BatchNorm) for module in model.modules()) else "outputs"


def _named(prefix: str, scores: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in scores.items()}


def prunable(model: nn.Module, pruning: Pruning) -> dict[str, nn.Parameter]:
    """The weights that a Pruning names."""
    return prunable_weights(model, pruning.kinds, include=pruning.include or None, exclude=pruning.exclude or None)
