"""Batches of sentence pairs by a budget of padded tokens, as the report trains ("batches of 1,500 tokens").

A batch of n pairs costs n x its longest source and n x its longest target; each must stay within the budget (what
`batch_size_fn` of the code behind the report counts). Pairs are sorted by length, so that little of that is padding.
Lengths are those the model sees, with the end of sentence. N pairs, B pairs of a batch, S and T padded lengths.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twore.data.tokens import TokenPairs, Tokens
from twore.data.vocabulary import PAD

Lengths = NDArray[np.integer]
# Shorter sides within so many tokens count as equal. Our choice, measured on 13,499 short and 67,957 ordinary pairs at
# 1,500 tokens: 5.0 and 3.1 % padding (4.0 and 1.7 % with exact ties), but only 50 and 37 % of a batch meet again in the
# next epoch (78 and 62 %).
STEP = 4


def token_batches(source_lengths: Lengths, target_lengths: Lengths, budget: int, seed: int) -> list[NDArray[np.int64]]:
    """Rows of each batch of an epoch, every pair once: B x longest source <= budget, B x longest target <= budget.

    The seed orders pairs of like lengths and shuffles the batches. Where a batch ends depends only on the lengths of
    the longer sides: so the number of batches is the same for every seed, and a schedule knows the updates of an epoch.
    ValueError for a pair beyond the budget.
    """
    source, target = np.asarray(source_lengths), np.asarray(target_lengths)
    if source.shape != target.shape:
        raise ValueError(f"there is one source and one target a pair: got {len(source)} and {len(target)} lengths")
    draw = np.random.PCG64(seed)  # its raw stream is what numpy promises to keep for ever
    order = _by_length(source, target, draw.random_raw(len(source)))
    batches = _cut(order, np.maximum(source, target), budget)
    return [batches[i] for i in np.argsort(draw.random_raw(len(batches)), kind="stable")]


def evaluation_batches(lengths: Lengths, budget: int) -> list[NDArray[np.int64]]:
    """Rows of each batch, longest sentences first (so memory peaks at once), every one once: B x longest <= budget.

    The same for ever: ties keep their order.
    """
    lengths = np.asarray(lengths)
    return _cut(np.argsort(lengths, kind="stable"), lengths, budget)[::-1]


def padded(pairs: TokenPairs, rows: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
    """Source (B, S) and target (B, T) of these rows, int64, each ending in EOS and then padded with PAD."""
    return _rectangle(pairs.source, rows), _rectangle(pairs.target, rows)


def _by_length(source: Lengths, target: Lengths, draws: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rows by the longer side, which side that is, the shorter side in steps, then chance: one sort of 64-bit keys."""
    longer = np.maximum(source, target).astype(np.uint64)
    steps = np.minimum(source, target).astype(np.uint64) // np.uint64(STEP)
    base = int(longer.max(initial=0)) + 1
    bits = (2 * base * base).bit_length()
    if bits > 56:  # at least eight bits of chance; our choice
        raise ValueError(f"a sentence has {base - 1} tokens, more than any model takes: lower max_tokens")
    keys = (longer * np.uint64(2) + (source > target)) * np.uint64(base) + steps
    return np.argsort((keys << np.uint64(64 - bits)) | (draws >> np.uint64(bits)), kind="stable")


def _cut(order: NDArray[np.int64], lengths: Lengths, budget: int) -> list[NDArray[np.int64]]:
    """Cut `order`, by which `lengths` rise, into runs as long as run x its longest allows."""
    if budget < 1:
        raise ValueError(f"the budget is a number of padded tokens, at least 1: got {budget}")
    rising = lengths[order].astype(np.int64)
    if len(rising) and rising[-1] > budget:
        raise ValueError(
            f"pair {order[-1]} has {rising[-1]} tokens a side, more than the {budget} of a whole batch: "
            "raise the batch size, or lower max_tokens"
        )
    batches, start = [], 0
    while start < len(order):
        most = budget // max(int(rising[start]), 1)  # the run's first is its shortest: no more can fit
        run = rising[start : start + most]
        size = int(np.searchsorted(run * np.arange(1, len(run) + 1), budget, side="right"))
        batches.append(order[start : start + size])
        start += size
    return batches


def _rectangle(tokens: Tokens, rows: NDArray[np.integer]) -> Tensor:
    lengths = tokens.lengths[rows]  # (B,)
    places = np.arange(int(lengths.max()) if len(rows) else 0)  # (S,)
    within = places < lengths[:, None]  # (B, S)
    filled = np.full(within.shape, PAD, dtype=np.int64)
    filled[within] = tokens.values[(tokens.offsets[:-1][rows][:, None] + places)[within]]
    return torch.from_numpy(filled)
