"""What is measured of every kept checkpoint, from weights alone: a row of checkpoints.csv.

random_distance and random_divergence (with _stderr and _noise), the spectral metrics of twore.metrics by their names in
METRICS, distance_from_init, and distance_from_previous (the kept checkpoint before). No data are read.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import nn

from twore.metrics import SpectralMetrics, distance_from_init, distance_from_previous, spectral_metrics

log = logging.getLogger("twore")

SPECTRAL = (  # names in METRICS; means over layers
    "stable_rank", "spectral_entropy", "log_norm", "log_spectral_norm", "powerlaw_alpha", "powerlaw_ks",
    "alpha_weighted", "log_alpha_norm", "etpl_alpha", "etpl_lambda", "etpl_ks", "exp_lambda", "exp_ks", "mp_softrank",
)  # fmt: skip
RANDOM = ("random_distance", "random_divergence")
DISTANCES = ("distance_from_init", "distance_from_previous")


def weight_metrics(
    model: nn.Module, initial: nn.Module, previous: nn.Module | None, *, permutations: int, name: str
) -> dict[str, Any]:
    """The metrics of one checkpoint. initial: the model before training; previous: the kept checkpoint before.

    name: of the checkpoint, for the one line that says why there are no metrics (a model without a layer to measure).
    """
    try:
        record = spectral_record(spectral_metrics(model, permutations=permutations))
        record["distance_from_init"] = distance_from_init(model, initial)
        record["distance_from_previous"] = distance_from_previous(model, previous) if previous else math.nan
        return record
    except ValueError as error:  # no reason not to prune it
        log.warning("%s: no metrics of its weights: %s", name, error)
        columns = [f"{column}{part}" for column in RANDOM for part in ("", "_stderr", "_noise")]
        return dict.fromkeys([*columns, *SPECTRAL, *DISTANCES], math.nan)


def spectral_record(found: SpectralMetrics) -> dict[str, Any]:
    """The columns of a checkpoint's spectra; without the random ones where there were no permutations."""
    record: dict[str, Any] = {}
    for column in RANDOM:
        if column in found.values:
            record[column] = found.values[column]
            record |= {f"{column}_stderr": found.stderr[column], f"{column}_noise": found.noise_floor[column]}
    return record | {column: found.values[column] for column in SPECTRAL}
