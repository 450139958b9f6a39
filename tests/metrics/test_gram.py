"""Eigenvalues: NumPy's way on the CPU against torch's way on a device and an SVD, in parts, on the threads of torch."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from twore.metrics import eigenvalues, gram
from twore.metrics.random_copies import permuted_slices

SHAPES = [(40, 40), (90, 12), (12, 90), (5, 7, 3, 3), (1, 1), (30, 1), (1, 30)]


def weight(shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) * 0.03


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [gram.CHUNK, 64])
def test_both_ways_give_the_squared_singular_values(shape, chunk, monkeypatch):
    monkeypatch.setattr(gram, "CHUNK", chunk)
    w = weight(shape)
    slices, scale = gram.as_slices("w", w)
    by_svd = np.sort((np.linalg.svd(slices.astype(np.float64), compute_uv=False) ** 2).ravel())
    np.testing.assert_allclose(eigenvalues(w), by_svd, rtol=0, atol=1e-14 * by_svd[-1])
    there = gram._eigenvalues_on_device(torch.from_numpy(slices), scale).flatten().sort().values * scale**2
    np.testing.assert_allclose(there, by_svd, rtol=0, atol=1e-14 * by_svd[-1])


def test_no_more_threads_than_torch_has(monkeypatch):
    seen = []

    def spy(matrices, own=np.linalg.eigvalsh):
        seen.extend(info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas")
        return own(matrices)

    monkeypatch.setattr(np.linalg, "eigvalsh", spy)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(2, user_api="blas"):
            eigenvalues(weight((20, 20)))
            assert {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"} == {2}  # put back
    finally:
        torch.set_num_threads(before)
    assert seen and set(seen) == {1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(20, 12), (6, 30), (8, 5, 3, 3)])
def test_half_types_are_not_widened_and_give_the_same_numbers(dtype, shape):
    """Bit for bit what float32 copies give, shuffled ones too: as_slices(short=True) saves memory and nothing else."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide, scale = gram.as_slices("w", weight.float())
    kept, same_scale = gram.as_slices("w", weight, short=True)
    assert kept.itemsize == 2 and wide.itemsize == 4 and scale == same_scale
    for number in range(2):
        shuffled = [permuted_slices(slices, seed=0, name="w", number=number) for slices in (wide, kept)]
        for a, b in ((wide, kept), shuffled):
            stacks = [slices[None] for slices in (a, b)]
            expected, found = (gram.pooled_eigenvalues(stack, scale, torch.device("cpu")) for stack in stacks)
            assert torch.equal(expected, found)
    on_device = gram._eigenvalues_on_device(torch.from_numpy(kept.view(np.uint16)).view(dtype), scale)
    torch.testing.assert_close(on_device, gram._eigenvalues_on_device(torch.from_numpy(wide), scale), rtol=0, atol=0)
