"""How the ratio grows while pruning goes on: at once, in rounds, or gradually.

progress p is the fraction of the pruning phase that is over, in [0, 1]; ratio_at(p) never falls, stays in [0, ratio]
and is exactly `ratio` at p = 1. R is the final ratio.

- one_shot   R at every p
- iterative  1 - (1 - R)**(i/N) in round i = 1..N, where round i runs over p in [(i-1)/N, i/N): each round keeps the
             same fraction of what the round before kept (Han et al. 2015; Frankle & Carbin 2019), and the last one,
             at the full ratio, trains as long as the others
- gradual    R + (0 - R) * (1 - p)**3: Zhu & Gupta 2017, eq. 1, with initial sparsity 0

    for step, batch in enumerate(batches):
        if step % every == 0:
            handle.masks = make_masks(weights, ratio_at("gradual", 0.9, min(1.0, step / last_pruning_step)))
"""

from __future__ import annotations

import math

from twore.pruning.choices import unknown
from twore.pruning.masks import check_ratio

SCHEDULES = ("one_shot", "iterative", "gradual")


def ratio_at(kind: str, ratio: float, progress: float, *, rounds: int = 4) -> float:
    """The fraction of the weights that is removed at `progress`, in [0, ratio].

    kind: of SCHEDULES. ratio: the final one, in [0, 1). progress: in [0, 1]. rounds: N >= 1, of "iterative" only
    (4 is our choice).
    """
    final = check_ratio(ratio)
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is the fraction of the pruning phase that is over, in [0, 1]: got {progress}")
    if rounds < 1 or rounds != int(rounds):
        raise ValueError(f"rounds is a whole number of at least 1: got {rounds}")
    if kind == "one_shot":
        return final
    if kind == "iterative":
        # 1e-9: i/N * N may fall a hair below i
        current = min(math.floor(progress * rounds + 1e-9) + 1, rounds)
        return final if current == rounds else min(final, -math.expm1(math.log1p(-final) * current / rounds))
    if kind == "gradual":
        left = 1.0 - progress
        return final * (1.0 - left * left * left)
    raise unknown("pruning schedule", kind, SCHEDULES)
