"""Exact unstructured pruning of linear and convolution weights: choose, mask, hold, audit, save.

    weights = prunable_weights(model, kinds=("conv",))            # which weights
    masks = make_masks(weights, 0.9)                              # which entries: True = kept
    with hold_masks(model, masks, optimizer):                     # zero now and after every optimizer.step()
        fine_tune(model, optimizer)
    assert audit_masks(model, masks).revived == 0                 # zeros stayed zero

The model is never rewritten (no hooks on it, no renamed parameters), so deepcopy, pickle, state_dict,
save_pretrained and torch.compile see a plain model that happens to contain zeros; masks are a plain dict beside it.
"""

from twore.pruning.allocation import ALLOCATIONS
from twore.pruning.batchnorm import recalibrate_batchnorm
from twore.pruning.files import load_masks, save_masks
from twore.pruning.holding import MaskHandle, hold_masks
from twore.pruning.masks import Audit, apply_masks, audit_masks, make_masks, sparsity_report
from twore.pruning.rescale import OutputStatistics, output_statistics, rescale_outputs
from twore.pruning.schedules import SCHEDULES, ratio_at
from twore.pruning.scores import SCORES
from twore.pruning.weights import KINDS, prunable_weights

__all__ = [
    "ALLOCATIONS",
    "KINDS",
    "SCHEDULES",
    "SCORES",
    "Audit",
    "MaskHandle",
    "OutputStatistics",
    "apply_masks",
    "audit_masks",
    "hold_masks",
    "load_masks",
    "make_masks",
    "output_statistics",
    "prunable_weights",
    "ratio_at",
    "recalibrate_batchnorm",
    "rescale_outputs",
    "save_masks",
    "sparsity_report",
]
