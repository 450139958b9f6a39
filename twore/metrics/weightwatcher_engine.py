"""WeightWatcher 0.7.7 as a reference engine: its own steps, on conv and linear layers only, its side effects undone.

Importing it sets up the root logger, silences every warning of the process and imports pyplot; using it prints, draws
from NumPy's global generator and marks the modules of the model. Here it is imported when first asked for, inside
`contained`, and sees a model made of nothing but the weights to be measured, so embeddings and position tables are not
counted and the user's model is not touched. It rounds weights to float32, and to float16 on a machine with CUDA.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from twore.metrics.spectrum import LayerSpectra

NO_LIMIT = 10**9  # it leaves layers with more than 15,000 eigenvalues or 50,000 rows out, without a word
ALWAYS = {  # its column -> ours
    "lambda_max": "lambda_max",
    "norm": "norm",
    "log_spectral_norm": "log_spectral_norm",
    "log_norm": "log_norm",
    "stable_rank": "stable_rank",
    "matrix_rank": "matrix_rank",
    "entropy": "spectral_entropy",
}
POWER_LAW = {
    "alpha": "powerlaw_alpha",
    "xmin": "powerlaw_xmin",
    "D": "powerlaw_ks",
    "sigma": "powerlaw_sigma",
    "num_pl_spikes": "powerlaw_tail",
    "log_alpha_norm": "log_alpha_norm",
    "alpha_weighted": "alpha_weighted",
}
BULK = {"mp_softrank": "mp_softrank", "sigma_mp": "mp_sigma", "num_spikes": "mp_spikes"}


@contextmanager
def contained() -> Iterator[Any]:
    """The module weightwatcher; at the end logging, warnings, matplotlib and NumPy's generator are as before.

    What it prints is dropped. ImportError that says what to install.
    """
    loggers = [logging.getLogger(name) for name in (None, "weightwatcher", "matplotlib")]
    levels, handlers = [logger.level for logger in loggers], list(loggers[0].handlers)
    random = np.random.get_state()  # noqa: NPY002  the generator that it draws from
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if not handlers:  # else the handler that its import adds would write to the stream dropped here
                loggers[0].addHandler(logging.NullHandler())
            logging.getLogger("weightwatcher").setLevel(logging.CRITICAL)  # it warns while it is imported
            try:
                import weightwatcher
            except ImportError as error:
                raise ImportError("engine 'weightwatcher' needs that package: pip install weightwatcher") from error
            logging.getLogger("weightwatcher").setLevel(logging.CRITICAL)
            warnings.simplefilter("ignore")
            import matplotlib

            with matplotlib.rc_context(), np.errstate(all="ignore"):
                yield weightwatcher
    finally:
        np.random.set_state(random)  # noqa: NPY002
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@torch.no_grad()
def weightwatcher_layers(
    weights: Mapping[str, Tensor], spectra: list[LayerSpectra], *, permutations: int, seed: int, fits: set[str]
) -> tuple[pd.DataFrame, list[LayerSpectra]]:
    """Each layer's metrics by WeightWatcher, with our names (NaN where it failed or the layer is all zero), and spectra
    with the distances to its permutations in place of ours.

    ValueError for a convolution that it would cut the wrong way: more kernel offsets than channels.
    """
    columns = ALWAYS | (POWER_LAW if "powerlaw" in fits else {}) | (BULK if "bulk" in fits else {})
    extra = {"ww_softrank": "ww_softrank"} if permutations else {}
    rows: list[dict[str, float]] = []
    measured: list[LayerSpectra] = []
    with contained() as ww:
        np.random.seed(seed % 2**32)  # noqa: NPY002
        for (name, weight), own in zip(weights.items(), spectra, strict=True):
            missing = np.full(permutations, np.nan)
            row = dict.fromkeys([*columns.values(), *extra], math.nan)
            between, distances, tops = missing[1:], missing, missing
            if own.scale > 0:
                watcher = ww.WeightWatcher(model=nn.Sequential(_module(name, weight)))
                layer, found = _steps(ww, watcher, fits)
                row |= {ours: float(found[theirs]) for theirs, ours in columns.items()}
                distances, between, tops = _distances(ww, watcher, layer, permutations)
                if permutations:
                    row["ww_softrank"] = float(tops.mean() / layer.evals.max())
            rows.append(row)
            measured.append(LayerSpectra(own.scale, own.evals, distances**2, between**2, tops))
    return pd.DataFrame(rows), measured


def _steps(ww: Any, watcher: Any, fits: set[str]) -> tuple[Any, dict[str, Any]]:
    """What `analyze` does to a layer, in its order, without the fits that are not wanted."""
    limits = {"min_evals": 1, "max_evals": NO_LIMIT, "max_N": NO_LIMIT}
    params = ww.constants.DEFAULT_PARAMS | limits | {"svd_method": "accurate", "savefig": False}
    (layer,) = list(watcher.make_layer_iterator(params=params))
    watcher.apply_normalize_Wmats(layer, params)
    watcher.apply_esd(layer, params)
    layer.alpha = math.nan
    if "powerlaw" in fits:
        watcher.apply_powerlaw(layer, params)
    if "bulk" in fits:
        watcher.apply_mp_fit(layer, random=False, params=params)
    watcher.apply_norm_metrics(layer, params)
    row = layer.get_row()
    if row.get("status") == "failed":
        row |= dict.fromkeys(POWER_LAW, math.nan)
    if row.get("sigma_mp") == -1:  # its mark for a fit that failed
        row |= dict.fromkeys(BULK, math.nan)
    return layer, row


def _distances(ww: Any, watcher: Any, layer: Any, permutations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rand_distance to each permuted copy, between successive copies, and each copy's largest eigenvalue."""
    params = ww.constants.DEFAULT_PARAMS | {"svd_method": "accurate"}
    random = [watcher.random_eigenvalues(layer.Wmats, layer.num_components, 1, params) for _ in range(permutations)]
    distance = ww.RMT_Util.jensen_shannon_distance
    to_random = [distance(layer.evals, evals) for evals in random]
    between = [distance(a, b) for a, b in zip(random, random[1:], strict=False)]
    return np.nan_to_num(to_random), np.nan_to_num(between), np.array([evals.max() for evals in random])


def _module(name: str, weight: Tensor) -> nn.Module:
    """A module of a kind that it knows, holding the weight as a matrix or as (out, in, kh, kw)."""
    dense = weight.detach()
    dense = (dense.to_dense() if dense.layout is not torch.strided else dense).float()
    module: nn.Module = nn.Linear(1, 1, bias=False, device="meta")
    if dense.ndim > 2:
        module = nn.Conv2d(1, 1, 1, bias=False, device="meta")
        dense = dense[..., None] if dense.ndim == 3 else dense.flatten(3)  # other axes, the same slices
        if sum(dense.shape[:2]) < sum(dense.shape[2:]):
            raise ValueError(
                f"the weight {name} has more kernel offsets than channels, and WeightWatcher would take the one for "
                "the other: use engine='twore', or name other layers"
            )
    module.weight = nn.Parameter(dense, requires_grad=False)
    return module
