"""How important each weight is: the entries with the lowest score are removed.

A score is a name in SCORES or a function (name, tensor) -> tensor of the same shape, higher = keep. The function gets
the mapping's own tensor, so that `tensor.grad` is there: `lambda name, w: (w * w.grad).abs()` is the SNIP score
(Lee et al. 2019, eq. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from twore.pruning.choices import unknown
from twore.pruning.selection import rankable
from twore.seeds import derive_seed

Score = Callable[[str, Tensor], Tensor]


def magnitude(name: str, weight: Tensor, seed: int) -> Tensor:
    """|w|, as in the report's section 6 (Han et al. 2015). Real and complex weights. (...) -> same shape, >= 0"""
    values = weight.detach()
    if values.is_complex():
        return values.abs()
    if not values.is_floating_point():
        lowest = -torch.iinfo(torch.int64).max  # |-2**63| does not fit int64
        return values.to(torch.int64).clamp(min=lowest).abs()
    return values.abs() if values.element_size() > 1 else values.to(torch.float32).abs_()  # 8-bit types have no abs


def random(name: str, weight: Tensor, seed: int) -> Tensor:
    """Uniform in [0, 1), float64 on the CPU: depends on seed, name and shape; not on device, dtype or other weights."""
    generator = torch.Generator().manual_seed(derive_seed("random pruning score", seed, name))
    return torch.rand(weight.shape, generator=generator, dtype=torch.float64)


SCORES: dict[str, Callable[[str, Tensor, int], Tensor]] = {"magnitude": magnitude, "random": random}


@torch.no_grad()
def score_weights(weights: Mapping[str, Tensor], score: str | Score, seed: int) -> dict[str, Tensor]:
    """The scores of every weight, flat and ready to be ranked: name -> (n,), NaN-free."""
    if not callable(score) and score not in SCORES:
        raise unknown("score", score, SCORES)
    scores = {}
    for name, weight in weights.items():
        values = score(name, weight) if callable(score) else SCORES[score](name, weight, seed)
        if not isinstance(values, Tensor) or values.shape != weight.shape:
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"the score of {name} must be a tensor of shape {tuple(weight.shape)}: got {got}")
        scores[name] = rankable(values)
        if bool(scores[name].isnan().any()):
            raise ValueError(f"the score of {name} has NaN entries, which cannot be ranked")
    return scores
