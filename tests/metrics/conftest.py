"""Inputs shared by the tests of the metrics."""

import pytest
import torch


@pytest.fixture(scope="session")
def probabilities():
    """A function (n, c, seed, dtype) -> (n, c) rows of probabilities, a different one for each seed."""

    def make(n: int, c: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (3 * torch.randn(n, c, generator=generator, dtype=torch.float64)).softmax(1).to(dtype)

    return make
