"""random_distance equals rand_distance of WeightWatcher, the tool the report used, for the same permutation."""

import copy
import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch

from twore.metrics import eigenvalues, random_distance
from twore.metrics.spectrum import permuted_slices

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


def test_same_eigenvalues_and_distance_for_the_same_permutation(weightwatcher, net, monkeypatch):
    watcher, params = weightwatcher.WeightWatcher(model=net), weightwatcher.constants.DEFAULT_PARAMS
    ours = random_distance(net, permutations=1).layers.set_index("name")
    names = []
    for layer in watcher.make_layer_iterator(model=net, params=params.copy()):
        name = f"{layer.longname}.weight"
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
    assert sorted(names) == sorted(ours.index[ours["counted"]]) != sorted(ours.index)  # 3.weight has 4 eigenvalues


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
