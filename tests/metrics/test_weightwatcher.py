"""Spectral metrics equal WeightWatcher 0.7.7's, the tool the report used; rand_distance for the same permutation.

Tolerances: eigenvalues 1e-6 of the largest; sizes, entropy and power laws 1e-6; sigma of the Marchenko-Pastur bulk
1e-3, since WeightWatcher stops its search there (and, in small matrices, sometimes in a lesser minimum).
"""

import copy
import io
import json
import logging
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch

from twore.metrics import eigenvalues, random_distance
from twore.metrics.spectra import spectral_metrics
from twore.metrics.spectrum import permuted_slices
from twore.metrics.weightwatcher_engine import contained
from twore.models import PreResNet
from twore.pruning import apply_masks, make_masks, prunable_weights

pytestmark = pytest.mark.slow  # importing weightwatcher alone takes seconds


@pytest.fixture
def weightwatcher():
    """The module; its import reconfigures logging, warnings and NumPy's global generator, put back afterwards."""
    root, state, random = logging.getLogger(), logging.getLogger().__dict__.copy(), np.random.get_state()  # noqa: NPY002
    handlers = list(root.handlers)
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        module = pytest.importorskip("weightwatcher")
        root.setLevel(logging.ERROR)
        yield module
    root.handlers[:] = handlers
    root.setLevel(state["level"])
    np.random.set_state(random)  # noqa: NPY002


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.Conv2d(8, 4, 3),  # more inputs than outputs: the other orientation
        torch.nn.BatchNorm2d(4),
        torch.nn.Conv2d(4, 16, 1),
        torch.nn.Flatten(),
        torch.nn.Linear(40, 20),
        torch.nn.Linear(20, 10),
    )
    with torch.no_grad():  # away from random: one direction of each layer stands out
        for weight in (p for p in model.parameters() if p.ndim > 1):
            weight += 2 * weight.std() * torch.randn(weight.shape[0]).view(-1, *[1] * (weight.ndim - 1))
    return model


def preresnet():
    """PreResNet-20, away from random, so that power laws have something to fit."""
    torch.manual_seed(0)
    return structured(PreResNet(depth=20))


def pruned():
    model = preresnet()
    apply_masks(model, make_masks(prunable_weights(model, kinds=("conv",)), 0.9))
    return model


def marian():
    """A small translation model with all layers of Transformer-base: embeddings, positions, 33 linear layers."""
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    size = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 64, "vocab_size": 120}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_vocab_size": 120}
    wide = {"encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "activation_function": "relu", "scale_embedding": True}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    untied = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False, "forced_eos_token_id": None}
    return structured(MarianMTModel(MarianConfig(**size, **heads, **wide, **tokens, **untied)))


def transformer_base():
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    size = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "vocab_size": 32000, "decoder_vocab_size": 32000}
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8, "activation_function": "relu"}
    wide = {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "max_position_embeddings": 512}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    untied = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False, "forced_eos_token_id": None}
    return structured(MarianMTModel(MarianConfig(**size, **heads, **wide, **tokens, **untied)))


def structured(model):
    """Each matrix with a few directions larger than the rest."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.ndim > 1):
            ranks = torch.arange(1, weight.shape[0] + 1) ** -0.7
            weight *= (1 + 6 * ranks[torch.randperm(len(ranks), generator=generator)]).view(
                -1, *[1] * (weight.ndim - 1)
            )
    return model


@pytest.fixture
def models(net):
    return {"small": lambda: net, "preresnet": preresnet, "pruned": pruned, "marian": marian}


SIZES = ["lambda_max", "norm", "log_spectral_norm", "log_norm", "stable_rank", "spectral_entropy"]
LAWS = ["alpha", "xmin", "ks", "sigma", "tail"]


@pytest.mark.parametrize("name", ["small", "preresnet", "pruned", "marian"])
def test_engines_agree(name, models):
    model = models[name]()
    fits = ("powerlaw", "bulk") if name == "small" else ("powerlaw",)
    ours = spectral_metrics(model, permutations=30, fits=fits)
    theirs = spectral_metrics(model, permutations=5, fits=fits, engine="weightwatcher")
    a, b = (result.layers.set_index("name") for result in (ours, theirs))
    assert list(a.index) == list(b.index) and a["counted"].equals(b["counted"])
    a, b = a[a["counted"]], b[b["counted"]]  # of fewer than 8 eigenvalues its sigma is negative
    for metric in [*SIZES, *(f"powerlaw_{part}" for part in LAWS), "log_alpha_norm", "alpha_weighted", "matrix_rank"]:
        np.testing.assert_allclose(a[metric], b[metric], rtol=1e-6, atol=1e-9, err_msg=metric)
        if not b[metric].isna().any():
            assert ours.values[metric] == pytest.approx(theirs.values[metric], rel=1e-6)
    if "bulk" in fits:
        np.testing.assert_allclose(a["mp_sigma"], b["mp_sigma"], rtol=1e-3)
        np.testing.assert_allclose(a["mp_softrank"], b["mp_softrank"], rtol=2e-3)
        np.testing.assert_array_equal(a["mp_spikes"], b["mp_spikes"])
    for metric in ("random_distance", "random_divergence"):
        error = np.hypot(ours.stderr[metric], theirs.stderr[metric])
        assert abs(ours.values[metric] - theirs.values[metric]) < 4 * error < 0.4 * ours.values[metric]
        assert ours.noise_floor[metric] == pytest.approx(theirs.noise_floor[metric], rel=0.2)
    assert ours.values["ww_softrank"] == pytest.approx(theirs.values["ww_softrank"], rel=0.1)


def test_analyze_gives_the_engine_s_numbers(net):
    engine = spectral_metrics(net, permutations=1, fits="powerlaw", engine="weightwatcher").layers.set_index("name")
    with contained() as weightwatcher:
        details = weightwatcher.WeightWatcher(model=copy.deepcopy(net)).analyze(min_evals=1)
    details.index = [f"{name}.weight" for name in details["longname"]]
    names = {"powerlaw_alpha": "alpha", "powerlaw_ks": "D", "spectral_entropy": "entropy"}
    for metric in (*SIZES, "powerlaw_alpha", "powerlaw_ks", "log_alpha_norm", "alpha_weighted"):
        theirs = details.loc[engine.index, names.get(metric, metric)]
        np.testing.assert_allclose(engine[metric], theirs, rtol=1e-9, err_msg=metric)


def test_only_conv_and_linear_layers_are_passed():
    model = marian()
    layers = spectral_metrics(model, permutations=0, fits=False, engine="weightwatcher").layers
    assert len(layers) == 33 and not layers["name"].str.contains("embed").any()
    assert not any(hasattr(module, "longname") for module in model.modules())


def test_other_axes_and_degenerate_layers():
    torch.manual_seed(0)
    weights = {
        "conv1d": torch.randn(8, 6, 5),
        "conv3d": torch.randn(6, 8, 2, 3, 2),
        "wide": torch.randn(1, 2, 7, 7),
        "zero": torch.zeros(9, 9),
        "half": torch.randn(12, 9).half(),
    }
    fits = {"permutations": 2, "fits": "powerlaw"}
    names = ["conv1d", "conv3d", "zero", "half"]
    a = spectral_metrics(weights, layers=names, **fits).layers.set_index("name")
    b = spectral_metrics(weights, layers=names, engine="weightwatcher", **fits).layers.set_index("name")
    for metric in (*SIZES, "powerlaw_alpha", "log_alpha_norm"):
        np.testing.assert_allclose(a[metric], b[metric], rtol=1e-6, err_msg=metric)
    assert not b["counted"]["zero"] and np.isnan(b["random_distance"]["zero"])
    with pytest.raises(ValueError, match="weight wide has more kernel offsets than channels"):
        spectral_metrics(weights, engine="weightwatcher", permutations=1, fits=False)


SIDE_EFFECTS = """
import json, logging, sys, warnings
import numpy as np, torch
from twore.metrics.spectra import spectral_metrics
assert "weightwatcher" not in sys.modules and "matplotlib" not in sys.modules
np.random.seed(3)
state = lambda: (logging.getLogger().level, len(logging.getLogger().handlers), list(warnings.filters),
                 np.random.get_state()[1].tolist())
before = state()
spectral_metrics({"a": torch.randn(12, 30), "c": torch.randn(9, 8, 3, 3)}, engine="weightwatcher", permutations=2)
assert state() == before, "left something behind"
warnings.warn("still heard")
print(json.dumps("weightwatcher" in sys.modules))
"""


def test_side_effects_of_importing_and_using_it_are_undone():
    done = subprocess.run([sys.executable, "-c", SIDE_EFFECTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) is True  # and nothing else was printed
    assert "still heard" in done.stderr and "INFO" not in done.stderr and "SciPy" not in done.stderr


def test_the_containment_holds_when_something_fails():
    level, handlers = logging.getLogger().level, list(logging.getLogger().handlers)
    with pytest.raises(RuntimeError), contained():
        np.random.seed(1)  # noqa: NPY002
        logging.getLogger().setLevel(1)
        raise RuntimeError
    assert (logging.getLogger().level, logging.getLogger().handlers) == (level, handlers)


def test_transformer_base_has_the_same_spectra(weightwatcher):
    model = transformer_base()
    names = ["lm_head.weight", "*decoder.layers.5.fc*", "*encoder.layers.0.self_attn.q_proj*"]
    options = {"layers": names, "permutations": 1, "fits": "powerlaw"}
    a = spectral_metrics(model, **options).layers
    b = spectral_metrics(model, **options, engine="weightwatcher").layers
    assert len(a) == 4
    for metric in (*SIZES, "powerlaw_alpha", "powerlaw_ks", "log_alpha_norm"):
        np.testing.assert_allclose(a[metric], b[metric], rtol=1e-6, err_msg=metric)
    for name in a["name"]:
        weight = model.get_parameter(name).detach()
        theirs = np.linalg.svd(weight.double().numpy(), compute_uv=False)[::-1] ** 2
        np.testing.assert_allclose(eigenvalues(weight), theirs, rtol=0, atol=1e-6 * theirs.max())


@pytest.mark.parametrize("name_of_model", ["small", "preresnet", "pruned", "marian"])
def test_same_eigenvalues_and_distance_for_the_same_permutation(weightwatcher, models, name_of_model, monkeypatch):
    net = models[name_of_model]()
    watcher, params = weightwatcher.WeightWatcher(model=net), weightwatcher.constants.DEFAULT_PARAMS
    ours = random_distance(net, permutations=1).layers.set_index("name")
    names = []
    for layer in watcher.make_layer_iterator(model=net, params=params.copy()):
        name = f"{layer.longname}.weight"
        if name not in ours.index:  # an embedding
            continue
        weight = net.get_parameter(name).detach()
        watcher.apply_normalize_Wmats(layer, params)
        watcher.apply_esd(layer, params)
        theirs = layer.evals / layer.evals.sum()  # their scale of W cancels
        mine = (eigenvalues(weight) / eigenvalues(weight).sum()).numpy()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6 * theirs.max())

        places = np.arange(weight.shape[0] * weight.shape[1]).reshape(weight.shape[:2])
        order = permuted_slices(np.stack([places] * len(layer.Wmats)), seed=0, name=name, number=0)
        slices = iter(range(len(order)))

        def shuffle(flat, order=order, slices=slices, layer=layer):
            s = next(slices)
            straight = layer.Wmats[s].shape == order[s].shape
            matrix = flat.reshape(layer.Wmats[s].shape)
            shuffled = (matrix if straight else matrix.T).flatten()[order[s]]
            flat[:] = (shuffled if straight else shuffled.T).flatten()

        with monkeypatch.context() as patch:
            patch.setattr(np.random, "shuffle", shuffle)
            random = watcher.random_eigenvalues(layer.Wmats, layer.num_components, 1, params)
        distance = weightwatcher.RMT_Util.jensen_shannon_distance(layer.evals, random)
        assert ours.loc[name, "value"] == pytest.approx(distance, rel=1e-6)
        names.append(name)
    assert sorted(names) == sorted(ours.index[ours["counted"]])
    assert len(names) == {"small": 4, "preresnet": 22, "pruned": 22, "marian": 33}[name_of_model]


def test_model_mean_within_permutation_error(weightwatcher, net):
    watcher, params = weightwatcher.WeightWatcher(model=net), weightwatcher.constants.DEFAULT_PARAMS
    ours = random_distance(net, permutations=40)
    means = []
    for seed in range(20):
        np.random.seed(seed)  # noqa: NPY002  weightwatcher draws from it
        values = []
        for layer in watcher.make_layer_iterator(model=copy.deepcopy(net), params=params.copy()):
            for step in (watcher.apply_normalize_Wmats, watcher.apply_esd, watcher.apply_random_esd):
                step(layer, params)
            values.append(layer.rand_distance if hasattr(layer, "rand_distance") else layer.columns["rand_distance"])
        means.append(np.mean(values))
    error = np.hypot(ours.stderr, np.std(means, ddof=1) / np.sqrt(len(means)))
    assert abs(ours.value - np.mean(means)) < 4 * error
    assert error < 0.05 * ours.value  # the comparison is sharp enough to see a wrong convention
