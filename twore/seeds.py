"""Seeds derived from names, so that every random stream is named, independent of the others, and resumable.

No stream carries state from one epoch to the next: epoch 7 of a run draws the same numbers whether the run started at
epoch 0 or was resumed at epoch 7, and whatever ran before it in the same process.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from a path of names and numbers, e.g. ("order", 0, 7). Equal paths give equal seeds."""
    text = "/".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch: initialisation and dropout draw from them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  third-party layers may still draw from the global generator
    torch.manual_seed(seed)
