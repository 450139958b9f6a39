"""Eigenvalues: NumPy's way on the CPU against torch's way on a device and an SVD, in parts, on the threads of torch."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from twore.metrics import eigenvalues, gram

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
