from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from simple_tasks import Blobs, Tagger
from torch import nn
from toy import CPU

from twore.study import Study, load_study, run_study, save_study
from twore.tasks import Task, TaskData
from twore.tasks.simple import EVAL_BATCH, labelled_data, row_count, split_rows, take_rows
from twore.training import Training

HERE = torch.device("cpu")


def small_study(task: Task, **fields: object) -> Study:
    dense = Training(epochs=4, batch_size=16, lr=0.05, drops=(2,))
    fine = replace(dense, epochs=1, schedule="constant", drops=())
    axes = {"checkpoints": (2, 4), "ratios": (0.5,), "finetune_seeds": (0, 1), "permutations": 2}
    return Study(task=task, dense=dense, finetune=fine, numerics=CPU, **(axes | fields))


@pytest.mark.parametrize("task", [Blobs(), Tagger()])
def test_they_are_tasks(task):
    assert isinstance(task, Task) and isinstance(task.load(None, HERE), TaskData)
    assert pickle.loads(pickle.dumps(task)) == task


def test_an_epoch_sees_every_row_once_in_an_order_of_its_seed():
    data = Blobs().load(None, HERE)
    rows = [torch.cat([x for x, _ in batches]) for batches in (data.epoch(7, 1), data.epoch(7, 1), data.epoch(7, 2))]
    plain = torch.cat([x for x, _ in data.plain()])
    assert len(plain) == 45 and data.updates(7) == 7 == len(list(data.epoch(7, 1)))
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], plain)
    assert torch.equal(rows[0].sort(0).values, plain.sort(0).values)


def test_loss_outputs_and_scores_by_hand():
    """Two classes, logits (0, ln 3) for every row: p = (1/4, 3/4)."""
    x, y = torch.zeros(4, 1), torch.tensor([1, 1, 1, 0])
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([1.0, 3.0]).log())
    data = labelled_data((x, y), (x, y), device=HERE)
    loss, count = data.loss(model, (x, y))
    expected = -3 * torch.tensor(0.75).log() - torch.tensor(0.25).log()
    assert count == 4 and float(loss.detach()) == pytest.approx(float(expected))
    torch.testing.assert_close(data.outputs(model, (x, y)), torch.tensor([[0.25, 0.75]] * 4))
    assert data.evaluate(model, "test") == {"score": 75.0, "loss": pytest.approx(float(expected) / 4)}
    assert torch.equal(data.targets((x, y)), y)
    assert data.splits == ("test",)


def test_inputs_may_be_a_tuple_or_a_mapping():
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    a, b, y = torch.eye(3), torch.zeros(3, 3), torch.arange(3)
    for inputs in ((a, b), {"b": b, "a": a}):
        data = labelled_data((inputs, y), (inputs, y), device=HERE)
        assert data.evaluate(Sum(), "test")["score"] == 100.0


def test_scores_do_not_depend_on_the_evaluation_batch():
    x = torch.randn(EVAL_BATCH + 3, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    model = nn.Linear(4, 2)
    data = labelled_data((x, y), (x, y), device=HERE)
    found = data.evaluate(model, "test")
    assert found["score"] == pytest.approx(100 * float((model(x).argmax(1) == y).double().mean()))
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-5)


def test_the_fingerprint_is_the_contents():
    x, y = torch.zeros(4, 1), torch.tensor([1, 1, 1, 0])
    same = labelled_data((x.clone(), y), (x, y), device=HERE).fingerprint
    assert labelled_data((x, y), (x, y), device=HERE).fingerprint == same
    assert labelled_data((x + 1, y), (x, y), device=HERE).fingerprint != same
    assert labelled_data((x, y), (x, 1 - y), device=HERE).fingerprint != same
    assert labelled_data((x.double(), y), (x, y), device=HERE).fingerprint != same


def test_split_rows_shares_every_row_out_once():
    rows = {"x": torch.arange(10.0), "more": [torch.arange(10)]}
    train, valid, test = split_rows(rows, valid=0.2, test=0.3, seed=1)
    assert [row_count(part) for part in (train, valid, test)] == [5, 2, 3]
    assert sorted(torch.cat([part["x"] for part in (train, valid, test)]).tolist()) == list(range(10))
    assert torch.equal(train["x"].long(), train["more"][0])  # rows stay together
    assert split_rows(rows, test=0.3)[1] is None
    assert torch.equal(take_rows(rows, torch.tensor([3]))["x"], torch.tensor([3.0]))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ((torch.zeros(3, 1), torch.zeros(3)), "int64 tensor"),
        ((torch.zeros(3, 1), torch.tensor([0, 1, -100])), "int64 tensor"),
        ((torch.zeros(3, 1), torch.tensor([0, 1])), "row an example"),
        ((["a", "b"], torch.tensor([0, 1])), "got a str"),
        ((torch.zeros(0, 1), torch.zeros(0).long()), "no rows"),
    ],
)
def test_wrong_data_is_one_sentence(train, words):
    with pytest.raises(ValueError, match=words) as caught:
        labelled_data(train, (torch.zeros(2, 1), torch.tensor([0, 1])), device=HERE)
    assert "\n" not in str(caught.value)


def test_wrong_shares_are_refused():
    with pytest.raises(ValueError, match="leave some rows"):
        split_rows(torch.zeros(4), valid=0.5, test=0.5)


@pytest.mark.parametrize("task", [Blobs(), Tagger()])
def test_a_study_on_it_runs_and_resumes(task, tmp_path):
    study = small_study(task)
    results = run_study(study, tmp_path, executor="serial", quiet=True)
    assert len(results.cells) == 4 and results.failures.empty
    assert results.cells["score"].between(0, 100).all()
    assert results.probes.get("pruned_score") is not None or not hasattr(task.load(None, HERE), "targets")
    before = (tmp_path / "results.csv").read_bytes()
    next((tmp_path / "store" / "cells").rglob("*.json")).unlink()
    again = run_study(study, tmp_path, executor="serial", quiet=True)
    assert again.cells["score"].tolist() == results.cells["score"].tolist()
    assert run_study(study, tmp_path, executor="serial", quiet=True).failures.empty
    assert (tmp_path / "results.csv").read_bytes().count(b"\n") == before.count(b"\n")


def test_it_is_named_in_study_yaml(tmp_path):
    study = small_study(Blobs(), settings=({}, {"task.hidden": 4}))
    save_study(study, tmp_path / "study.yaml")
    assert "simple_tasks:Blobs" in (tmp_path / "study.yaml").read_text()
    assert load_study(tmp_path / "study.yaml") == study
    (tmp_path / "short.yaml").write_text("task: {kind: 'simple_tasks:Blobs', hidden: 16}\n")
    assert load_study(tmp_path / "short.yaml").task == Blobs(hidden=16)


@pytest.mark.slow
def test_worker_processes_find_it(tmp_path):
    study = small_study(Blobs())
    here = run_study(study, tmp_path / "a", executor="serial", quiet=True).cells
    there = run_study(study, tmp_path / "b", workers=1, executor="process", quiet=True)
    assert there.failures.empty and there.cells["score"].tolist() == here["score"].tolist()
