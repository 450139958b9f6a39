from __future__ import annotations

import numpy as np
import pytest
import torch

from twore.tasks import CifarTask, Task, TaskData
from twore.tasks.cifar import _with_shifts

TASK = CifarTask(dataset="digits", depth=8, width=8, holdout=0.1, crop_padding=1, flip=False)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return TASK.load(None, CPU)


def test_it_is_a_task(data):
    assert isinstance(TASK, Task)
    assert isinstance(data, TaskData)
    assert CifarTask(dataset="digits", depth=8, width=8, holdout=0.1, crop_padding=1, flip=False) == TASK
    assert hash(TASK) != hash(CifarTask())


def test_digits_need_no_folder_and_are_the_declared_ones(data):
    assert data.fingerprint == TASK.known_fingerprint()
    assert len(data.train) + len(data.eval["valid"]) == 1297
    assert len(data.eval["test"]) == 500
    assert data.splits == ("valid", "test")
    assert CifarTask(dataset="digits").load(None, CPU).splits == ("test",)


def test_an_epoch_sees_every_image_once(data):
    labels = torch.cat([y for _, y in data.epoch(100, seed=1)])
    plain = torch.cat([y for _, y in data.plain()])
    assert torch.equal(labels.sort().values, plain.sort().values)
    assert data.updates(100) == len(list(data.epoch(100, seed=1)))


def test_scores_by_hand(data):
    """A model that always says class 3 is right for the share of threes, in percent; the loss sums over images."""

    class Threes(torch.nn.Module):
        def forward(self, x):
            return torch.eye(10)[torch.full((len(x),), 3)] * 5

    share = float(np.mean([y == 3 for _, ys in data.eval["test"].plain(500) for y in ys.tolist()]))
    scores = data.evaluate(Threes(), "test")
    assert scores["score"] == pytest.approx(100 * share)
    by_hand = np.log(9 + np.exp(5)) - 5 * share
    assert scores["loss"] == pytest.approx(by_hand, rel=1e-6)


def test_loss_is_a_sum_with_its_count(data):
    model = TASK.build()
    x, y = next(iter(data.plain()))
    loss, count = data.loss(model, (x, y))
    assert count == len(y)
    assert float(loss) / count == pytest.approx(float(torch.nn.functional.cross_entropy(model(x), y)), rel=1e-5)


def test_outputs_are_probabilities_of_the_training_set(data):
    model = TASK.build().eval()
    with torch.no_grad():
        rows = torch.cat([data.outputs(model, batch) for batch in data.plain()])
    assert rows.shape == (len(data.train), 10)
    torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)))


def test_shifts_move_one_pixel_and_keep_labels():
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1) + 1
    x, y = _with_shifts(image, np.array([4]))
    assert x.shape == (5, 3, 3, 1)
    assert y.tolist() == [4] * 5
    assert x[0, :, :, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert x[1, :, :, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]  # down
    assert {tuple(v.ravel().tolist()) for v in x} == {
        (1, 2, 3, 4, 5, 6, 7, 8, 9),
        (0, 0, 0, 1, 2, 3, 4, 5, 6),
        (4, 5, 6, 7, 8, 9, 0, 0, 0),
        (0, 1, 2, 0, 4, 5, 0, 7, 8),
        (2, 3, 0, 5, 6, 0, 8, 9, 0),
    }


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dataset": "cifar11"}, "dataset"),
        ({"depth": 9}, "6n\\+2"),
        ({"data_percent": 0.0}, "data_percent"),
        ({"holdout": 1.0}, "holdout"),
        ({"crop_padding": -1}, "crop_padding"),
        ({"variant": "wide"}, "variant"),
        ({"width": 4}, "width"),
        ({"subset_seed": -1}, "subset_seed"),
    ],
)
def test_senseless_values_are_refused(change, word):
    with pytest.raises(ValueError, match=word):
        CifarTask(**change)


def test_where_the_data_came_from_is_told(data):
    about = data.describe()
    assert about["fingerprint"] == data.fingerprint
    assert len(about["train_indices"]) == about["train"] == len(data.train)
    assert not set(about["train_indices"]) & set(about["valid_indices"])
