"""spectral_metrics: hand values, one pass equal to the single metrics, nulls, degenerate input, and what is refused."""

import doctest
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from twore.metrics import METRICS, random_distance, random_divergence, spectra, spectrum, weight_metrics
from twore.metrics.marchenko_pastur import fit_bulk
from twore.metrics.powerlaw import fit_power_laws
from twore.metrics.random_copies import permuted_slices, redrawn_slices
from twore.metrics.spectra import spectral_metrics
from twore.metrics.truncated import fit_truncated


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_weights(dtype=torch.float32):
    return {
        "lin": randn(40, 24).to(dtype),
        "wide": (randn(24, 60, seed=1) + 0.3).to(dtype),
        "conv": randn(8, 6, 3, 3, seed=2).to(dtype),
        "low": (randn(30, 3, seed=3) @ randn(3, 30, seed=4) + 0.1 * randn(30, 30, seed=5)).to(dtype),
    }


def slices(weight):
    return weight.double().reshape(*weight.shape[:2], -1).permute(2, 0, 1)


def evals(weight):
    """Oracle: squared singular values, pooled, and halved for a convolution."""
    pooled = torch.linalg.svdvals(slices(weight)).square().flatten().sort().values.numpy()
    return pooled / 2 if weight.ndim > 2 else pooled


def test_formulas():
    weights = some_weights()
    layers = spectral_metrics(weights, permutations=3).layers.set_index("name")
    for name, weight in weights.items():
        x, row = evals(weight), layers.loc[name]
        p = x / x.sum()
        expected = {
            "lambda_max": x.max(),
            "norm": float(weight.double().square().sum()) / (2 if weight.ndim > 2 else 1),
            "log_spectral_norm": math.log10(x.max()),
            "log_norm": math.log10(x.sum()),
            "stable_rank": x.sum() / x.max(),
            "matrix_rank": len(x),
            "spectral_entropy": -(p * np.log(p)).sum() / math.log(len(x)),
        }
        law, (etpl, exp) = fit_power_laws([x]), fit_truncated([x])
        bulk = fit_bulk(x, *weight.shape[:2])
        expected |= {
            "powerlaw_alpha": law.alpha[0],
            "powerlaw_xmin": law.xmin[0],
            "powerlaw_ks": law.ks[0],
            "powerlaw_sigma": law.sigma[0],
            "powerlaw_tail": law.tail[0],
            "alpha_weighted": law.alpha[0] * math.log10(x.max()),
            "log_alpha_norm": math.log10((x ** law.alpha[0]).sum()),
            "etpl_alpha": etpl.alpha[0],
            "etpl_lambda": etpl.lam[0],
            "etpl_ks": etpl.ks[0],
            "exp_lambda": exp.lam[0],
            "exp_ks": exp.ks[0],
            "mp_softrank": bulk.softrank,
            "mp_sigma": bulk.sigma,
            "mp_spikes": bulk.spikes,
        }
        tops = []
        for number in range(3):
            copy = permuted_slices(slices(weight).float().numpy(), seed=0, name=name, number=number)
            tops.append(np.linalg.svd(copy.astype(float), compute_uv=False).max() ** 2)
        expected["ww_softrank"] = np.mean(tops) / (x.max() * (2 if weight.ndim > 2 else 1))
        for metric, value in expected.items():
            assert row[metric] == pytest.approx(value, rel=1e-6, abs=1e-7), (name, metric)


def test_hand_values():
    values = spectral_metrics({"w": torch.diag(torch.tensor([10.0, 1.0, 1, 1, 1, 1, 1, 1, 1, 1]))}, fits=False).values
    assert values["stable_rank"] == pytest.approx(1.09)
    assert values["log_spectral_norm"] == pytest.approx(2)
    assert values["log_norm"] == pytest.approx(math.log10(109))
    flat = spectral_metrics({"w": torch.eye(16)}, fits=False).values
    assert (flat["stable_rank"], flat["matrix_rank"]) == (16, 16)
    assert flat["spectral_entropy"] == pytest.approx(1, abs=1e-7)


def test_random_distances_are_those_of_the_single_functions():
    weights, options = some_weights(), {"permutations": 4, "seed": 5, "min_evals": 25}
    result = spectral_metrics(weights, fits=False, **options)
    for name, single in (
        ("random_distance", random_distance(weights, **options)),
        ("random_divergence", random_divergence(weights, **options)),
    ):
        assert (result.values[name], result.stderr[name]) == (single.value, single.stderr)
        assert result.noise_floor[name] == single.noise_floor
        for ours, theirs in ((name, "value"), (f"{name}_stderr", "stderr"), (f"{name}_noise_floor", "noise_floor")):
            np.testing.assert_array_equal(result.layers[ours], single.layers[theirs])
    assert set(result.stderr) == set(result.noise_floor) == {"random_distance", "random_divergence"}


REGISTERED = sorted(name for name, metric in METRICS.items() if metric.fn.__module__ == weight_metrics.__name__)


def test_which_metrics_are_registered():
    assert len(REGISTERED) == 15
    columns = spectral_metrics(some_weights(), permutations=1).values
    assert set(REGISTERED) <= set(columns)


@pytest.mark.parametrize("name", REGISTERED)
def test_a_single_metric_is_its_column(name):
    weights = some_weights()
    result = spectral_metrics(weights, min_evals=25)
    metric = METRICS[name]
    assert metric.fn(weights, min_evals=25) == result.values[name]
    counted = result.layers.loc[result.layers["evals"] >= 25, name]
    assert len(counted) == 2 and result.values[name] == pytest.approx(counted.mean())
    assert counted.between(metric.low, metric.high).all()
    assert math.isnan(metric.fn({"w": torch.zeros(9, 9)}))


def test_every_decomposition_is_done_once(monkeypatch):
    calls, real = [], np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda gram: calls.append(len(gram)) or real(gram))
    weights = {"a": randn(20, 20), "conv": randn(4, 4, 3, 3)}
    spectral_metrics(weights, permutations=5)
    assert sum(calls) == 6 * (1 + 9)  # each matrix and its five copies
    calls.clear()
    spectral_metrics(weights, permutations=0)
    assert sum(calls) == 10


def test_fits_and_permutations_can_be_left_out():
    weights = some_weights()
    bare = spectral_metrics(weights, permutations=0, fits=False)
    assert set(bare.values) == {
        "lambda_max", "norm", "log_spectral_norm", "log_norm", "stable_rank", "matrix_rank", "spectral_entropy"
    }  # fmt: skip
    assert bare.stderr == bare.noise_floor == {}
    full = spectral_metrics(weights)
    assert set(spectral_metrics(weights, permutations=0, fits="bulk").values) - set(bare.values) == {
        "mp_softrank", "mp_sigma", "mp_spikes"
    }  # fmt: skip
    for name, value in bare.values.items():
        assert full.values[name] == value
    one = spectral_metrics(weights, permutations=1, fits=False)
    assert math.isnan(one.stderr["random_distance"]) and math.isnan(one.noise_floor["random_divergence"])


def test_the_reinitialised_null_keeps_mean_and_spread_and_differs_from_the_permuted_one():
    w = randn(2, 200, 100).numpy() * np.array([1.0, 3.0])[:, None, None].astype(np.float32) + 0.5
    copy = redrawn_slices(w, seed=0, name="w", number=0)
    assert copy.shape == w.shape
    assert copy.mean() == pytest.approx(w.mean(), abs=0.05)
    assert copy.std() == pytest.approx(w.std(), rel=0.02)
    np.testing.assert_array_equal(copy, redrawn_slices(w, seed=0, name="w", number=0))
    assert not np.array_equal(copy, redrawn_slices(w, seed=0, name="w", number=1))
    # normal entries: the two nulls agree; a few large entries survive a permutation, not a fresh draw
    noise = {"w": randn(100, 80)}
    both = [spectral_metrics(noise, null=null, fits=False).values["random_distance"] for null in spectrum.NULLS]
    assert both[0] == pytest.approx(both[1], rel=0.2) and both[0] != both[1]
    spiky = {"w": randn(100, 80) ** 7}
    permuted, redrawn = (spectral_metrics(spiky, null=null, fits=False) for null in spectrum.NULLS)
    assert redrawn.values["random_distance"] > 2 * permuted.values["random_distance"]
    assert redrawn.noise_floor["random_distance"] < permuted.noise_floor["random_distance"]


def test_degenerate_layers_have_a_defined_answer():
    weights = {
        "zero": torch.zeros(9, 9),
        "empty": torch.zeros(0, 4),
        "one": torch.ones(1, 1),
        "ones": torch.ones(9, 9),
        "low_rank": randn(20, 3) @ randn(3, 20, seed=1),
        "eye": torch.eye(10),
        "tiny": randn(10, 10, dtype=torch.float64) * 1e-200,
        "huge": randn(10, 10, dtype=torch.float64) * 1e200,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = spectral_metrics(weights).layers.set_index("name")
    metrics = [c for c in layers.columns if c not in spectra.ABOUT]
    assert layers.loc[["zero", "empty"], metrics].isna().all(axis=None)
    assert layers["counted"].to_dict() == dict.fromkeys(weights, True) | {"zero": False, "empty": False, "one": False}
    assert list(layers.loc[["one", "ones", "low_rank", "eye"], "matrix_rank"]) == [1, 1, 3, 10]
    assert list(layers.loc[["one", "ones"], "spectral_entropy"]) == [0, 0]
    fits = ["powerlaw_alpha", "etpl_lambda", "exp_ks"]
    assert layers.loc[["one", "ones", "eye", "tiny", "huge"], fits].isna().all(axis=None)  # equal, or out of range
    assert layers.loc["low_rank", fits].notna().all()
    for scale, name in ((-200, "tiny"), (200, "huge")):
        same = spectral_metrics({name: weights[name] * 10.0**-scale}).layers.iloc[0]
        for metric in ("stable_rank", "spectral_entropy", "random_distance", "mp_softrank"):
            assert layers.loc[name, metric] == pytest.approx(same[metric], rel=1e-9)
        assert layers.loc[name, "log_norm"] == pytest.approx(same["log_norm"] + 2 * scale)
    nothing = spectral_metrics({"zero": torch.zeros(9, 9)})
    assert all(math.isnan(value) for value in nothing.values.values())


def test_a_tall_matrix_is_read_in_blocks():
    w = torch.ones(100_000, 8)
    w[::2, 0] = -1  # 50,000 rows (1, ..., 1) and as many (-1, 1, ..., 1): the first column is orthogonal to the rest
    values = spectral_metrics({"w": w}, permutations=1, fits=False).values
    assert values["norm"] == pytest.approx(8e5)
    assert values["lambda_max"] == pytest.approx(7e5)
    assert values["matrix_rank"] == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64])
def test_any_real_dtype(dtype):
    whole = {name: (20 * w).round().clamp(-120, 120) for name, w in some_weights().items()}
    result = spectral_metrics({name: w.to(dtype) for name, w in whole.items()}, permutations=2)
    for name, value in spectral_metrics(whole, permutations=2).values.items():
        assert result.values[name] == pytest.approx(value, rel=1e-9), name


def test_float32_gives_nearly_the_float64_values():
    double = {name: w.double() * (1 + 1e-9) for name, w in some_weights().items()}
    single = spectral_metrics(some_weights())
    for name, value in spectral_metrics(double).values.items():
        assert single.values[name] == pytest.approx(value, rel=1e-4), name


def test_the_same_again_and_nothing_else_changes():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = spectral_metrics(model), spectral_metrics(model)
    assert first.values == second.values
    pd.testing.assert_frame_equal(first.layers, second.layers)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_layers_and_kinds_are_chosen():
    weights = some_weights()
    assert list(spectral_metrics(weights, kinds="conv", fits=False).layers["name"]) == ["conv"]
    assert list(spectral_metrics(weights, layers=["l*"], fits=False).layers["name"]) == ["lin", "low"]


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({"a": torch.full((9, 9), math.nan)}, {}, "weight a holds NaN"),
        ({"a": torch.ones(9, 9, device="meta")}, {}, "weight a holds no numbers"),
        ({"a": torch.ones(9, 9)}, {"permutations": -1}, "permutations is a whole number, at least 0"),
        ({"a": torch.ones(9, 9)}, {"min_evals": 10}, "largest has 9"),
        ({"a": torch.ones(9, 9)}, {"null": "shuffled"}, "null is one of permuted, reinitialised: got 'shuffled'"),
        ({"a": torch.ones(9, 9)}, {"engine": "ww"}, "engine is one of twore, weightwatcher: got 'ww'"),
        ({"a": torch.ones(9, 9)}, {"engine": "weightwatcher", "null": "reinitialised"}, "'permuted' only"),
        ({"a": torch.ones(9, 9)}, {"fits": ("powerlaw", "pareto")}, r"powerlaw, truncated, bulk: got \['pareto'\]"),
        ({"a": torch.ones(9, 9)}, {"seed": 0.5}, "seed is a whole number"),
    ],
)
def test_bad_input_is_refused(weights, options, message):
    with pytest.raises(ValueError, match=message):
        spectral_metrics(weights, **options)


def test_a_metric_of_random_copies_needs_one():
    with pytest.raises(ValueError, match="at least 1: got 0"):
        weight_metrics.ww_softrank({"a": torch.ones(9, 9)}, permutations=0)


def test_examples_run():
    assert doctest.testmod(spectra).failed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_values():
    on_gpu = spectral_metrics({name: w.cuda() for name, w in some_weights().items()}).values
    for name, value in spectral_metrics(some_weights()).values.items():
        assert on_gpu[name] == pytest.approx(value, rel=1e-6), name
