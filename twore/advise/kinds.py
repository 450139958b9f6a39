"""The kind of a network, by which calibrations are told apart: how it is repaired after pruning, before it is scored.

A network with other norms beside BatchNorm is repaired in part only. It is a kind of its own, never calibrated.
"""

from __future__ import annotations

from torch import nn

from twore.checkpoints import Checkpoint
from twore.study.pruned_scores import REPAIRS, repair_of

BATCHNORM, OUTPUTS = REPAIRS
MIXED = f"{BATCHNORM}, beside other norms"
NETWORKS = {BATCHNORM: "BatchNorm alone", OUTPUTS: "no BatchNorm", MIXED: "BatchNorm beside other norms"}  # for people
NORMS = ("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm")  # parts of the names of norms that are not repaired
STATISTIC = ".running_mean"  # what BatchNorm alone stores beside its weight


def kind_of(model: nn.Module) -> str:
    """One of NETWORKS, of a model at hand."""
    kind = repair_of(model)
    names = {type(module).__name__ for module in model.modules()}
    return MIXED if kind == BATCHNORM and any(part in name for name in names for part in NORMS) else kind


def stored_kind(checkpoint: Checkpoint) -> str:
    """One of NETWORKS, as far as names and shapes in a file tell: a norm is a vector that is called a weight (so is the
    slope of a PReLU, if it has several)."""
    tensors = checkpoint.tensors
    owners = {name.removesuffix(STATISTIC) for name in tensors if name.endswith(STATISTIC)}
    norms = {name.removesuffix(".weight") for name, info in tensors.items() if name.endswith(".weight")
             and len(info.shape) == 1 and info.size > 1}  # fmt: skip
    return OUTPUTS if not owners else MIXED if norms - owners else BATCHNORM
