"""Masks of a checkpoint larger than memory: weights read one at a time where the allocation allows, masks kept as bits.

"uniform" and "erk" need one weight in memory at a time, since their counts follow from shapes alone; "global" and
"lamp" compare all weights and hold them together (4 bytes an entry, several times over while ranking).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from twore.pruning import make_masks
from twore.pruning.allocation import removed_counts
from twore.pruning.masks import check_ratio
from twore.pruning.scores import Score, score_weights
from twore.pruning.selection import lowest


def masks_of(weights: Mapping[str, Tensor], ratio: float, *, score: str | Score, allocation: str) -> PackedMasks:
    """What `twore.pruning.make_masks` gives for the same arguments, one bit an entry.

    weights: name -> tensor; a mapping that reads on access (`Checkpoint.lazily`) is read once a name.
    """
    ratio = check_ratio(ratio)
    packed = PackedMasks()
    if allocation == "uniform":
        for name in weights:
            packed.add(name, make_masks({name: weights[name]}, ratio, score=score)[name])
    elif allocation == "erk":
        shapes = {name: torch.empty(weights[name].shape, device="meta") for name in weights}
        removed = removed_counts(shapes, {}, ratio, allocation)
        for name in weights:
            weight = weights[name]
            make_masks({name: weight}, 0.0)  # its checks
            scores = score_weights({name: weight}, score, 0)[name]
            packed.add(name, ~lowest(scores, removed[name]).reshape(weight.shape).cpu())
    else:
        for name, mask in make_masks(dict(weights), ratio, score=score, allocation=allocation).items():
            packed.add(name, mask)
    return packed


class PackedMasks(Mapping[str, Tensor]):
    """name -> bool tensor, held as one bit an entry and unpacked on every access."""

    def __init__(self) -> None:
        self._bits: dict[str, tuple[np.ndarray, torch.Size]] = {}

    def add(self, name: str, mask: Tensor) -> None:
        self._bits[name] = (np.packbits(mask.cpu().numpy().reshape(-1)), mask.shape)

    def __getitem__(self, name: str) -> Tensor:
        bits, shape = self._bits[name]
        return torch.from_numpy(np.unpackbits(bits, count=shape.numel()).astype(bool)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)
