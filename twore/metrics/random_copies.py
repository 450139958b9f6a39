"""Random counterparts of a layer's weights: its entries shuffled, or drawn anew; the null of the spectral metrics.

Which numbers are drawn depends on the seed, the layer's name and shape and the copy's number, never on the weights or
on other layers: all checkpoints of a trajectory meet the same ones. Letters: S slices, r x c a slice.
"""

from __future__ import annotations

import hashlib

import numpy as np

NULLS = ("permuted", "reinitialised")


def permuted_slices(slices: np.ndarray, *, seed: int, name: str, number: int) -> np.ndarray:
    """A copy of a layer's slices with the entries of each slice shuffled within it. (S, r, c) -> (S, r, c)

    The shuffle depends on seed, name, number and shape only, never on the values or on other layers.
    """
    copy = slices.reshape(slices.shape[0], -1).copy()
    generator = _generator("", slices.shape, seed, name, number)
    for row in copy:
        generator.shuffle(row)
    return copy.reshape(slices.shape)


def redrawn_slices(slices: np.ndarray, *, seed: int, name: str, number: int) -> np.ndarray:
    """Normal entries with the mean and the standard deviation of all the layer's entries. (S, r, c) -> (S, r, c)

    In float64. The standard normal numbers behind them depend on seed, name, number and shape only.
    """
    mean, deviation = float(slices.mean(dtype=np.float64)), float(slices.std(dtype=np.float64))
    return mean + deviation * _generator("redrawn|", slices.shape, seed, name, number).standard_normal(slices.shape)


def _generator(prefix: str, shape: tuple[int, ...], seed: int, name: str, number: int) -> np.random.Generator:
    identity = f"{prefix}{seed}|{name}|{'x'.join(map(str, shape))}|{number}"
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(identity.encode()).digest()[:16], "big")))
