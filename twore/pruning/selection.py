"""The k lowest entries, exactly k, ties by position: the one rule that all masks follow.

Ranking is by value and then by flat index (row-major, whatever the memory format), so that the answer is the same on
every device and for every dtype. On the CPU the work is O(n): a k-th value and a pass over the ties, no sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

LARGE = 2**22  # entries beyond which a tensor is searched in blocks; our choice
BLOCK = 2**20  # entries of a block: its copies, some 40 bytes an entry, are small beside a large tensor; our choice
HALF = 2**16  # values of half a float32
SHORT = (torch.float16, torch.bfloat16)  # every value is a float32


def lowest(scores: Tensor, k: int) -> Tensor:
    """True at the k lowest entries of `scores`, the earliest first among equals. (n,) -> bool (n,)

    scores: no NaN, a dtype that `rankable` returns. k: in [0, n].
    """
    if k in (0, scores.numel()):
        return torch.full_like(scores, k > 0, dtype=torch.bool)
    if _is_large(scores):
        return _lowest_in_blocks(scores, k)
    threshold = _kth(scores, k)
    below = scores < threshold
    ties = scores == threshold
    wanted = k - int(below.count_nonzero())  # of the ties; at least 1
    if wanted < int(ties.count_nonzero()):
        ties &= ties.cumsum(0) <= wanted
    return below | ties


def counts_of_lowest(scores: Mapping[str, Tensor], k: int) -> dict[str, int]:
    """How many of the k lowest entries of all tensors together lie in each; ties: the earliest tensor first."""
    if k == 0:
        return dict.fromkeys(scores, 0)
    tensors = _on_one_device_and_dtype(scores)
    threshold = _kth(torch.cat(list(tensors.values())), k)
    counts = {name: int((tensor < threshold).count_nonzero()) for name, tensor in tensors.items()}
    wanted = k - sum(counts.values())  # of the ties
    for name, tensor in tensors.items():
        taken = min(wanted, int((tensor == threshold).count_nonzero()))
        counts[name] += taken
        wanted -= taken
    return counts


def rankable(values: Tensor) -> Tensor:
    """`values` flattened, in a dtype and on a device where comparing, kthvalue and counting are exact. (...) -> (n,)

    Half types become float32 (exact), those of large tensors as they are ranked, block by block; float32 and float64
    stay; integers and booleans become int64. Devices other than CPU and CUDA may lack float64 or kthvalue: they are
    ranked on the CPU.
    """
    flat = values.detach().reshape(-1)
    if flat.is_complex():
        raise ValueError(f"scores must be real numbers: got {flat.dtype}")
    if flat.device.type not in ("cpu", "cuda"):
        flat = flat.cpu()
    if not flat.is_floating_point():
        return flat.to(torch.int64)
    return flat if flat.dtype in (torch.float32, torch.float64) or _is_large(flat) else flat.to(torch.float32)


def _is_large(scores: Tensor) -> bool:
    """Whether kthvalue's copy and its int64 indices, 12 bytes an entry, are worth avoiding."""
    return scores.numel() > LARGE and scores.device.type == "cpu" and scores.dtype in (torch.float32, *SHORT)


def _lowest_in_blocks(scores: Tensor, k: int) -> Tensor:
    """`lowest` with little memory beside the scores and the answer: the same entries. (n,) -> bool (n,)"""
    threshold = _kth_by_bits(scores, k)
    found = torch.empty_like(scores, dtype=torch.bool)
    wanted = k - sum(int((block < threshold).count_nonzero()) for block in _blocks(scores))  # of the ties; at least 1
    for block, out in zip(_blocks(scores), found.split(BLOCK), strict=True):
        ties = block == threshold
        if wanted < int(ties.count_nonzero()):
            ties &= ties.cumsum(0) <= wanted
        wanted -= int(ties.count_nonzero())
        torch.logical_or(block < threshold, ties, out=out)
    return found


def _blocks(scores: Tensor) -> Iterator[Tensor]:
    """BLOCK scores at a time, as float32. (n,) -> (BLOCK,) each, the last one shorter"""
    return (block.float() for block in scores.split(BLOCK))


def _kth_by_bits(scores: Tensor, k: int) -> Tensor:
    """The k-th lowest, float32, by counting the upper, then the lower halves of their bits. (n,) -> ()

    Read as whole numbers, floats of equal sign are ordered by size; flipping the others' lower bits orders all.
    """
    below, prefix = 0, 0
    for shift in (16, 0):
        counts = torch.zeros(HALF, dtype=torch.int64)
        for block in _blocks(scores):
            bits = block.view(torch.int32)
            ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
            halves = (ordered >> 16) + HALF // 2 if shift else ordered[(ordered >> 16) == prefix] & 0xFFFF
            counts += torch.bincount(halves, minlength=HALF)
        half = int(torch.searchsorted(counts.cumsum(0), k - below))
        below += int(counts[:half].sum())
        prefix = half - HALF // 2 if shift else (prefix << 16) | half
    value = torch.tensor(prefix, dtype=torch.int32)
    return (value ^ ((value >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _kth(scores: Tensor, k: int) -> Tensor:
    """The k-th lowest value, k >= 1. (n,) -> ()"""
    if scores.is_cuda:  # kthvalue refuses to run there under torch.use_deterministic_algorithms(True); sorting is quick
        return scores.sort().values[k - 1]
    return scores.kthvalue(k).values


def _on_one_device_and_dtype(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    devices = {tensor.device for tensor in scores.values()}
    dtypes = {tensor.dtype for tensor in scores.values()}
    device = devices.pop() if len(devices) == 1 else torch.device("cpu")
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float64
    dtype = torch.float32 if dtype in SHORT else dtype
    return {name: tensor.to(device=device, dtype=dtype) for name, tensor in scores.items()}
