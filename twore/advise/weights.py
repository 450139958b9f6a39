"""Evidence from weights alone, one matrix in memory at a time: no data, no model class, nothing of theirs is run.

    spectra     the metrics of `spectral_metrics`, of each checkpoint by itself
    movement    ||W - W_s|| / ||W_s|| to the first checkpoint and to the one before
    pruning     at each ratio: prune_perturbation, and mask_distance to the checkpoint before
All are what a study writes to checkpoints.csv and probes.csv, by the same names and from the same code; what belongs to
one checkpoint and what belongs to a pair of them are cached apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twore.advise.cache import Cache
from twore.advise.reading import Opened
from twore.metrics.spectra import streamed_spectral_metrics
from twore.metrics.trajectory import differing_bits, moved_squares, removed_squares, squares
from twore.pruning import make_masks
from twore.study.weight_metrics import spectral_record


@dataclass(frozen=True)
class Measuring:
    """What is measured of weights. Fields are part of a record's key."""

    ratios: tuple[float, ...]
    spectra: bool = True  # whether matrices are decomposed at all
    permutations: int = 10  # random copies behind random_distance; 0 leaves out what needs them


def spectra_of(one: Opened, contents: str, measuring: Measuring, cache: Cache) -> dict[str, float]:
    """The spectral metrics of a checkpoint; empty when they are not asked for, or no layer is large enough."""
    if not measuring.spectra:
        return {}
    return _numbers(cache.get("spectra", spectra_key(one, contents, measuring), lambda: _spectra(one, measuring)))


def spectra_key(one: Opened, contents: str, measuring: Measuring) -> dict[str, Any]:
    """What the record of a checkpoint's spectra depends on."""
    return {"contents": contents, "layers": _layers(one), "permutations": measuring.permutations}


def movement(one: Opened, contents: str, other: Opened, others: str, cache: Cache) -> float:
    """||W - W_s|| / ||W_s||, W_s the other checkpoint's weights; 0 for the same checkpoint, NaN when all are zero."""
    key = {"contents": contents, "from": others, "layers": _layers(one)}

    def measure() -> dict[str, Any]:
        moved, norm = 0.0, 0.0
        for layer, earlier in zip(one.layers, other.layers):
            then = other.read(earlier)
            moved += moved_squares(one.read(layer), then)
            norm += squares(then)
        return {"distance": math.sqrt(moved) / math.sqrt(norm) if norm else math.nan}

    return float(cache.get("movement", key, measure)["distance"])


def perturbations(one: Opened, contents: str, ratios: Sequence[float], cache: Cache) -> dict[float, float]:
    """prune_perturbation at each ratio, masks by magnitude, every layer to the same ratio."""

    def measure(missing: list[float]) -> list[float]:
        whole, removed = 0.0, [0.0] * len(missing)
        for layer in one.layers:
            weight = one.read(layer)
            whole += squares(weight)
            removed = [sum_ + removed_squares(weight, _mask(weight, r)) for sum_, r in zip(removed, missing)]
        return [math.sqrt(part / whole) if whole else math.nan for part in removed]

    return _at_each(ratios, "perturbation", {"contents": contents, "layers": _layers(one)}, cache, measure)


def mask_distances(
    one: Opened, contents: str, other: Opened, others: str, ratios: Sequence[float], cache: Cache
) -> dict[float, float]:
    """mask_distance of two checkpoints at each ratio."""

    def measure(missing: list[float]) -> list[float]:
        bits = [(0, 0)] * len(missing)
        for layer, earlier in zip(one.layers, other.layers):
            now, then = one.read(layer), other.read(earlier)
            for i, ratio in enumerate(missing):
                differ, most = differing_bits(_mask(now, ratio), _mask(then, ratio))
                bits[i] = (bits[i][0] + differ, bits[i][1] + most)
        return [differ / most if most else 0.0 for differ, most in bits]

    key = {"contents": contents, "from": others, "layers": _layers(one)}
    return _at_each(ratios, "mask distance", key, cache, measure)


def _at_each(
    ratios: Sequence[float], what: str, key: dict[str, Any], cache: Cache, measure: Callable[[list[float]], list[float]]
) -> dict[float, float]:
    """A record a ratio; those that are missing are measured in one pass over the layers."""
    found = {ratio: cache.find(what, key | {"ratio": float(ratio)}) for ratio in ratios}
    missing = [ratio for ratio, record in found.items() if record is None]
    for ratio, value in zip(missing, measure(missing) if missing else ()):
        found[ratio] = {"value": value}
        cache.put(what, key | {"ratio": float(ratio)}, {"value": value})
    return {ratio: float(record["value"]) for ratio, record in found.items() if record is not None}


def _spectra(one: Opened, measuring: Measuring) -> dict[str, Any]:
    found = streamed_spectral_metrics(one.weights(), permutations=measuring.permutations)
    return spectral_record(found)


def _mask(weight: Any, ratio: float) -> Any:
    return make_masks({"w": weight}, ratio)["w"]


def _layers(one: Opened) -> list[list[Any]]:
    """Which tensors are measured: what a record depends on beside the contents of the files."""
    return [[layer.name, layer.source, list(layer.shape)] for layer in one.layers]


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """In one order, whether measured now or read: records are written with sorted names."""
    return {name: float(record[name]) for name in sorted(record)}
