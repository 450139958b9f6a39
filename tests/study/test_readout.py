"""The read-out of pruned features: against ridge regression written out in NumPy; where there is nothing to read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_probes import LabelledData, LabelledTask, run, study
from torch import Tensor, nn
from toy import CPU, ToyTask

from twore.study.readout import BLOCK, RIDGE, chance, cross_validated, last_features, readout_scores, ridge
from twore.tasks import CifarTask, TranslationTask
from twore.tasks.simple import labelled_data

GENERATOR = torch.Generator().manual_seed(0)


def blobs(rows: int, features: int, classes: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    y = torch.randint(classes, (rows,), generator=GENERATOR)
    centres = torch.randn(classes, features, generator=GENERATOR)
    return centres[y] + noise * torch.randn(rows, features, generator=GENERATOR), y


def by_hand(x: np.ndarray, y: np.ndarray, classes: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of the rows with sqrt(ridge) I below them: the same minimum, by another road."""
    mean, hot = x.mean(0), np.eye(classes)[y]
    centred = x - mean
    root = np.sqrt(strength * (centred**2).sum(0).mean()) * np.eye(x.shape[1])
    wanted = np.vstack([hot - hot.mean(0), np.zeros((x.shape[1], classes))])
    weight, *_ = np.linalg.lstsq(np.vstack([centred, root]), wanted, rcond=None)
    return weight, hot.mean(0) - mean @ weight


@pytest.mark.parametrize("rows, features", [(200, 6), (20, 50)], ids=["tall", "more features than examples"])
def test_ridge_is_least_squares_with_the_ridge_written_as_rows(rows, features):
    x, y = blobs(rows, features, 4)
    weight, bias = ridge(x.double(), y, 4)
    hand = by_hand(x.double().numpy(), y.numpy(), 4, RIDGE)
    np.testing.assert_allclose(weight.numpy(), hand[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(bias.numpy(), hand[1], rtol=1e-8, atol=1e-10)


def test_without_a_ridge_it_is_plain_least_squares():
    x, y = blobs(300, 5, 3)
    weight, bias = ridge(x.double(), y, 3, strength=0.0)
    design = np.hstack([x.double().numpy(), np.ones((300, 1))])
    plain, *_ = np.linalg.lstsq(design, np.eye(3)[y.numpy()], rcond=None)
    np.testing.assert_allclose(np.vstack([weight.numpy(), bias.numpy()[None]]), plain, atol=1e-10)


def test_each_half_is_scored_by_the_fit_to_the_other():
    x, y = blobs(150, 8, 3)
    half = np.arange(150) // BLOCK % 2 == 1
    right, squares = 0, 0.0
    for fitted in (half, ~half):
        weight, bias = by_hand(x.double().numpy()[fitted], y.numpy()[fitted], 3, RIDGE)
        found = x.double().numpy()[~fitted] @ weight + bias
        right += int((found.argmax(1) == y.numpy()[~fitted]).sum())
        squares += float(((found - np.eye(3)[y.numpy()[~fitted]]) ** 2).sum())
    assert cross_validated(x, y, 3) == pytest.approx({"score": 100 * right / 150, "loss": squares / 150})


def test_what_only_fits_its_own_half_is_worth_chance():
    """500 features of noise explain 64 examples perfectly, and the other 64 not at all."""
    x, y = torch.randn(128, 500, generator=GENERATOR), torch.arange(128) % 2
    weight, bias = ridge(x[:64].double(), y[:64], 2)
    assert ((x[:64].double() @ weight + bias).argmax(1) == y[:64]).all()
    assert cross_validated(x, y, 2)["score"] < 70


def test_blobs_far_apart_are_read_without_error():
    x, y = blobs(200, 10, 4, noise=0.01)
    found = cross_validated(x, y, 4)
    assert found["score"] == 100
    assert found["loss"] < 0.01


def test_the_order_within_a_half_does_not_matter():
    x, y = blobs(4 * BLOCK, 6, 3)
    blocks = torch.arange(4 * BLOCK).view(4, BLOCK)
    order = torch.cat([blocks[2].flip(0), blocks[1][torch.randperm(BLOCK)], blocks[0], blocks[3]])
    assert cross_validated(x[order], y[order], 3) == pytest.approx(cross_validated(x, y, 3), abs=1e-9)


@pytest.mark.parametrize("features", [torch.zeros(100, 5), torch.full((100, 5), 0.3), torch.zeros(100, 5).double()])
def test_features_that_say_nothing_give_the_commonest_class(features):
    y = (torch.arange(100) % 10 == 0).long()
    assert cross_validated(features, y, 2)["score"] == pytest.approx(90) == chance(y)
    assert cross_validated(features, y, 2)["loss"] == pytest.approx(2 * 0.1 * 0.9, abs=0.01)


def test_one_class_is_always_right():
    x, _ = blobs(100, 5, 2)
    found = cross_validated(x, torch.zeros(100, dtype=torch.int64), 3)
    assert found == pytest.approx({"score": 100.0, "loss": 0.0}, abs=1e-9)


def test_a_dead_and_a_doubled_feature_change_nothing_of_note():
    x, y = blobs(200, 4, 3)
    wide = torch.cat([x, x[:, :1], torch.zeros(200, 1)], dim=1)
    assert cross_validated(wide, y, 3)["score"] == pytest.approx(cross_validated(x, y, 3)["score"], abs=2)


def test_features_that_are_not_finite_and_too_few_rows():
    x, y = blobs(100, 4, 3)
    x[3, 1] = torch.inf
    assert np.isnan(cross_validated(x, y, 3)["score"])
    assert cross_validated(x[:BLOCK], y[:BLOCK], 3) == {}


def test_the_last_layer_of_the_vision_task_is_its_classifier():
    task = CifarTask(dataset="digits", depth=8, width=8)
    data, model = task.load(None, torch.device("cpu")), task.build().eval()
    batch = next(iter(data.plain()))
    features, classes = last_features(model, data, batch)
    assert classes == 10
    torch.testing.assert_close(data.outputs(model, batch), model.classifier(features).softmax(1))


def test_the_last_layer_of_translation_is_its_prediction_layer(monkeypatch, tmp_path):
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path))
    task = TranslationTask(
        dataset="generated", scored_on="test", also=(), pairs=200, vocab_size=300, d_model=16, layers=1, heads=2, ffn=16
    )
    data, model = task.load(None, torch.device("cpu")), task.build().eval()
    batch = next(iter(data.plain()))
    features, classes = last_features(model, data, batch)
    assert (len(features), classes) == (len(batch.wanted), 300)  # padding excluded, as in `outputs`
    torch.testing.assert_close(data.outputs(model, batch), model.lm_head(features).softmax(1))


def test_the_last_layer_of_a_simple_task():
    x, y = blobs(60, 10, 3)
    data = labelled_data((x, y), (x, y), device=torch.device("cpu"))
    model = nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3)).eval()
    batches = list(data.plain())
    assert last_features(model, data, batches[0])[0].shape == (60, 7)
    assert readout_scores(model, data, batches, CPU)["score"] > 40


def test_batches_may_be_cut_anywhere():
    x, y = blobs(100, 10, 3)
    data = labelled_data((x, y), (x, y), device=torch.device("cpu"))
    model = nn.Linear(10, 3).eval()
    cut = readout_scores(model, data, [(x[:30], y[:30]), (x[30:31], y[30:31]), (x[31:], y[31:])], CPU)
    assert cut == pytest.approx(readout_scores(model, data, [(x, y)], CPU))


class Distances(nn.Module):
    """Classes by distance to centres: no linear layer says them."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = nn.Linear(10, 5) if first else nn.Identity()
        self.centres = nn.Parameter(torch.randn(3, 5 if first else 10))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.first(x), self.centres)


@pytest.mark.parametrize("first", [True, False], ids=["a linear layer that is not the last", "none at all"])
def test_where_no_linear_layer_says_the_classes_there_is_nothing(first):
    x, y = blobs(60, 10, 3)
    data = labelled_data((x, y), (x, y), device=torch.device("cpu"))
    assert readout_scores(Distances(first), data, [(x, y)], CPU) == {}


def test_probes_have_it_on_the_repaired_network_with_its_cost(tmp_path):
    probes = run(study(), tmp_path).probes
    assert probes["readout_score"].between(0, 100).all()
    assert probes["readout_loss"].notna().all()
    assert not probes["readout_score"].equals(probes["pruned_readout_score"])
    assert set(probes["readout_cost"].round(12)) == {round(3 * 48 / 288, 12)}  # one pass more than `cost`
    assert set(probes["chance"]) == {100 / 3}


@dataclass(frozen=True)
class DistanceTask(LabelledTask):
    def build(self) -> nn.Module:
        return Distances(True)

    def load(self, folder, device) -> LabelledData:
        return LabelledData(replace(self), device)


def test_probes_of_a_network_without_such_a_layer_have_the_others(tmp_path):
    probes = run(study(DistanceTask()), tmp_path).probes
    assert "readout_score" not in probes.columns
    assert "readout_cost" not in probes.columns
    assert probes["recalibrated_score"].notna().all()
    assert "chance" not in run(study(ToyTask()), tmp_path / "unlabelled").probes.columns
