"""random_distance: a NumPy and SciPy oracle, hand values, invariances, and which layers are measured."""

import doctest
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn
from torch.nn.utils import prune

from twore.metrics import (
    eigenvalues,
    gram,
    random_distance,
    random_divergence,
    spectral_distances,
    spectral_weights,
    spectrum,
)
from twore.metrics.spectrum import permuted_slices


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle_spectrum(slices):
    evals = np.sort(np.concatenate([np.linalg.svd(s.astype(np.float64), compute_uv=False) ** 2 for s in slices]))
    return evals / evals.sum()


def oracle(name, weight, permutations, seed):
    """Distances to each permuted copy (P,), and between successive copies (P - 1,), by SVD and SciPy."""
    slices = weight.reshape(*weight.shape[:2], -1).permute(2, 0, 1).numpy()
    own = oracle_spectrum(slices)
    random = [oracle_spectrum(permuted_slices(slices, seed=seed, name=name, number=k)) for k in range(permutations)]
    return (
        np.array([jensenshannon(own, r) for r in random]),
        np.array([jensenshannon(a, b) for a, b in zip(random, random[1:], strict=False)]),
    )


def test_equals_the_oracle():
    weights = {"lin": randn(20, 12), "conv": randn(4, 6, 3, 3, seed=1), "wide": randn(9, 30, seed=2) + 0.5}
    both = spectral_distances(weights, permutations=4, seed=7)
    distances, floors = zip(*[oracle(name, w, 4, 7) for name, w in weights.items()], strict=True)
    for result, power in ((both.distance, 1), (both.divergence, 2)):
        table, means = np.array(distances) ** power, (np.array(distances) ** power).mean(axis=0)
        np.testing.assert_allclose(result.layers["value"], table.mean(axis=1), rtol=1e-9)
        np.testing.assert_allclose(result.layers["stderr"], table.std(axis=1, ddof=1) / 2, rtol=1e-8)
        np.testing.assert_allclose(result.layers["noise_floor"], (np.array(floors) ** power).mean(axis=1), rtol=1e-8)
        assert result.value == pytest.approx(means.mean(), rel=1e-9)
        assert result.stderr == pytest.approx(means.std(ddof=1) / 2, rel=1e-8)
        assert result.noise_floor == pytest.approx((np.array(floors) ** power).mean(), rel=1e-8)
    assert list(both.distance.layers["evals"]) == [12, 36, 9]
    assert list(both.distance.layers["kind"]) == ["linear", "conv", "linear"]
    assert list(both.distance.layers["shape"]) == [(20, 12), (4, 6, 3, 3), (9, 30)]


def test_the_two_functions_are_the_two_kinds():
    weights = {"w": randn(16, 16)}
    both = spectral_distances(weights)
    assert float(random_distance(weights)) == both.distance.value != both.divergence.value
    assert (
        random_distance(weights, kind="divergence").value == random_divergence(weights).value == both.divergence.value
    )
    assert (both.distance.kind, both.divergence.kind) == ("distance", "divergence")


def test_hand_value_of_a_matrix_that_a_permutation_cannot_change():
    # all entries equal: every permuted copy is the matrix itself
    result = random_distance({"w": torch.ones(8, 8)})
    assert (result.value, result.stderr, result.noise_floor) == (0, 0, 0)
    assert eigenvalues(torch.ones(8, 8)).max() == pytest.approx(64)


def test_eigenvalues_of_a_convolution_are_pooled_over_its_slices():
    weight = torch.zeros(2, 2, 1, 2)
    weight[:, :, 0, 0] = torch.diag(torch.tensor([1.0, 4.0]))
    weight[:, :, 0, 1] = torch.diag(torch.tensor([2.0, 3.0]))
    assert eigenvalues(weight).tolist() == [1, 4, 9, 16]


def test_structure_is_far_above_and_noise_at_the_noise_floor():
    noise = random_distance({"w": randn(64, 64)}, permutations=20)
    structure = random_distance({"w": randn(64, 2) @ randn(2, 64, seed=1)}, permutations=20)
    assert noise.value < 2 * noise.noise_floor
    assert structure.value > 5 * structure.noise_floor


def test_spectrum_is_invariant():
    w = randn(24, 10, dtype=torch.float64)
    base = eigenvalues(w)
    torch.testing.assert_close(base, torch.linalg.svdvals(w).square().flip(0))  # the 10 of the smaller side, no zeros
    rows, columns = torch.randperm(24, generator=torch.Generator().manual_seed(1)), torch.arange(9, -1, -1)
    for same in (w.T, w[rows], w[:, columns], -w, torch.linalg.qr(randn(24, 24, dtype=torch.float64))[0] @ w):
        torch.testing.assert_close(eigenvalues(same), base, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(eigenvalues(3 * w), 9 * base)


@pytest.mark.parametrize("scale", [-2.0, 1e-30, 1e30, 1e-200, 1e200])
def test_scaling_a_layer_changes_nothing(scale):
    w = randn(12, 12, dtype=torch.float64)
    assert random_distance({"w": w * scale}).value == pytest.approx(random_distance({"w": w}).value, rel=1e-9)


def test_transposing_changes_the_value_within_its_error():
    w = randn(40, 3) @ randn(3, 30, seed=1) + randn(40, 30, seed=2)
    a, b = random_distance({"w": w}, permutations=40), random_distance({"w": w.T}, permutations=40)
    assert abs(a.value - b.value) < 4 * math.hypot(a.stderr, b.stderr)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8])
def test_any_real_dtype_is_measured_in_float64(dtype):
    w = (randn(16, 16) * 20).round().to(dtype)  # small whole numbers: exact in every dtype
    assert random_distance({"w": w}).value == random_distance({"w": w.double()}).value


def test_permutations_stay_the_same_whatever_else_is_measured():
    a, b = randn(10, 10), randn(4, 4, 3, 3, seed=1)
    alone = random_distance({"a": a}, seed=3).layers
    with_others = random_distance({"b": b, "a": a}, seed=3).layers
    assert alone["value"][0] == with_others["value"][1]
    first = permuted_slices(a.numpy()[None], seed=3, name="a", number=0)
    changed = permuted_slices(2 * a.numpy()[None], seed=3, name="a", number=0)
    np.testing.assert_array_equal(changed, 2 * first)
    for other in ({"seed": 4}, {"name": "b"}, {"number": 1}):
        options = {"seed": 3, "name": "a", "number": 0} | other
        assert not np.array_equal(permuted_slices(a.numpy()[None], **options), first)


def test_permutations_are_pinned():
    # stored results rest on these: a change here makes old and new checkpoints incomparable
    shuffled = permuted_slices(np.arange(12.0).reshape(2, 2, 3), seed=0, name="conv.weight", number=0)
    assert shuffled.astype(int).reshape(2, 6).tolist() == [[0, 4, 3, 2, 1, 5], [8, 6, 7, 9, 10, 11]]
    assert sorted(shuffled[1].flatten()) == list(range(6, 12))  # within a slice


def test_large_layers_are_decomposed_in_parts(monkeypatch):
    weights = {"tall": randn(50, 8), "wide": randn(8, 50, seed=1), "conv": randn(6, 5, 3, 3, seed=2)}
    whole = spectral_distances(weights)
    monkeypatch.setattr(spectrum, "CHUNK", 100)  # copies at once
    monkeypatch.setattr(gram, "CHUNK", 100)  # rows of a weight at once
    parts = spectral_distances(weights)
    np.testing.assert_allclose(parts.distance.layers["value"], whole.distance.layers["value"], rtol=1e-9)
    assert parts.divergence.noise_floor == pytest.approx(whole.divergence.noise_floor, rel=1e-9)


def test_one_permutation_has_a_value_but_no_error():
    result = random_distance({"w": randn(16, 16)}, permutations=1)
    assert result.value > 0
    assert math.isnan(result.stderr) and math.isnan(result.noise_floor)
    assert result.layers[["stderr", "noise_floor"]].isna().all(axis=None)


def test_min_evals_counts_pooled_eigenvalues():
    weights = {"small": randn(7, 30), "pooled": randn(2, 2, 2, 2), "large": randn(12, 12)}
    layers = random_distance(weights).layers.set_index("name")
    assert layers["counted"].to_dict() == {"small": False, "pooled": True, "large": True}
    assert layers["value"].notna().all()  # measured, though not counted
    assert random_distance(weights).value == pytest.approx(layers["value"][["pooled", "large"]].mean())
    assert random_distance(weights, min_evals=7).layers["counted"].all()
    with pytest.raises(ValueError, match="largest has 12.*lower min_evals"):
        random_distance(weights, min_evals=13)


def test_an_all_zero_layer_is_not_counted():
    with_zero = random_distance({"zero": torch.zeros(16, 16), "w": randn(16, 16)})
    assert with_zero.value == random_distance({"w": randn(16, 16)}).value
    assert list(with_zero.layers["counted"]) == [False, True]
    assert math.isnan(with_zero.layers["value"][0])
    empty = random_distance({"empty": torch.zeros(0, 5), "empty_conv": torch.zeros(3, 0, 3, 3), "w": randn(16, 16)})
    assert list(empty.layers["counted"]) == [False, False, True]
    nothing = random_distance({"zero": torch.zeros(16, 16)})
    assert math.isnan(nothing.value) and math.isnan(nothing.stderr) and math.isnan(nothing.noise_floor)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.position = nn.Parameter(torch.randn(16, 8))
        self.conv = nn.Conv1d(8, 8, 3)
        self.norm = nn.LayerNorm([8, 8])
        self.attention = nn.MultiheadAttention(8, 2)
        self.cross = nn.MultiheadAttention(8, 2, kdim=5, vdim=6)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.head = nn.Linear(8, 20)
        self.head.weight = self.embed.weight  # tied: measured once, as the layer it is
        self.again = nn.Linear(8, 20)
        self.again.weight = self.head.weight


def test_which_weights_of_a_model_are_measured():
    names = list(spectral_weights(Net()))
    assert names == [
        "conv.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "cross.q_proj_weight",
        "cross.k_proj_weight",
        "cross.v_proj_weight",
        "cross.out_proj.weight",
        "up.weight",
        "head.weight",
    ]
    for kinds in (("conv",), "conv"):
        assert list(spectral_weights(Net(), kinds=kinds)) == ["conv.weight", "up.weight"]
    assert list(spectral_weights(Net(), layers=["head.weight", "*.q_*"])) == ["cross.q_proj_weight", "head.weight"]


def test_transformers_conv1d_is_a_linear_layer():
    from transformers.pytorch_utils import Conv1D

    assert list(spectral_weights(nn.Sequential(Conv1D(12, 8)))) == ["0.weight"]


def test_a_model_and_its_state_dict_agree_and_a_mask_is_seen():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 16))
    base = random_distance(model)
    assert base.value == random_distance(model.state_dict()).value
    assert base.value == random_distance({k: v.numpy() for k, v in model.state_dict().items()}).value
    prune.random_unstructured(model[3], "weight", amount=0.5)
    masked = random_distance(model)
    assert list(masked.layers["name"]) == list(base.layers["name"])
    effective = {"0.weight": model[0].weight, "3.weight": model[3].weight_orig * model[3].weight_mask}
    assert masked.value == random_distance(effective).value != base.value


def test_a_quantised_layer_is_refused():
    model = nn.Linear(9, 9)
    model.weight = nn.Parameter(torch.ones(9, 9, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="weight is torch.int8.*dequantised"):
        random_distance(model)


def test_neither_weights_nor_random_state_change():
    model, state = nn.Linear(16, 16), torch.get_rng_state()
    before = model.weight.detach().clone()
    random_distance(model)
    assert torch.equal(model.weight, before) and model.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({"a": torch.ones(9, 9), "b": torch.full((9, 9), math.nan)}, {}, "weight b holds NaN"),
        ({"a": torch.full((9, 9), math.inf)}, {}, "weight a holds NaN or inf"),
        ({"a": torch.ones(9, 9, device="meta")}, {}, "weight a holds no numbers"),
        (nn.Linear(9, 9, device="meta"), {}, "weight weight holds no numbers"),
        (nn.Sequential(nn.LazyLinear(9)), {}, "weight 0.weight holds no numbers"),
        ({"a": torch.ones(9, 9, dtype=torch.complex64)}, {}, "complex"),
        ({"a": torch.ones(9)}, {}, "no conv or linear weight"),
        (nn.Embedding(9, 9), {}, "no conv or linear weight"),
        (nn.Linear(9, 9), {"kinds": ("conv",)}, "no conv weight"),
        (nn.Linear(9, 9), {"kinds": ("embedding",)}, "kinds are"),
        (nn.Linear(9, 9), {"layers": ["wieght"]}, "did you mean 'weight'"),
        (nn.Linear(9, 9), {"layers": []}, "layers is empty"),
        (nn.Linear(9, 9), {"kind": "js"}, "kind is 'distance' or 'divergence'"),
        (nn.Linear(9, 9), {"permutations": 0}, "permutations is a whole number"),
        (nn.Linear(9, 9), {"permutations": 2.5}, "permutations is a whole number"),
        (nn.Linear(9, 9), {"min_evals": 0}, "min_evals is a whole number"),
        (nn.Linear(9, 9), {"seed": None}, "seed is a whole number"),
    ],
)
def test_bad_input_is_refused(weights, options, message):
    with pytest.raises(ValueError, match=message):
        random_distance(weights, **options)


def test_examples_run():
    assert doctest.testmod(spectrum).failed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_value():
    weights = {"lin": randn(40, 30), "conv": randn(8, 8, 3, 3)}
    on_gpu = random_distance({name: w.cuda() for name, w in weights.items()})
    assert on_gpu.value == pytest.approx(random_distance(weights).value, rel=1e-9)
