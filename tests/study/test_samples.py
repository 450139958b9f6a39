"""Samples for people: kept with dense checkpoints and cells, written to samples.csv, absent from tables of numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from toy import CPU, ToyData, ToyTask

from twore.study import Study, dense, run_study, stages
from twore.training import Training


@dataclass(frozen=True)
class TalkingTask(ToyTask):
    def load(self, folder, device):
        return TalkingData(self, device)


class TalkingData(ToyData):
    def samples(self, model):
        return [f"class {int(c)}" for c in model(self.x[:2]).argmax(1)]

    def evaluate(self, model, split):
        return super().evaluate(model, split) | {"signature": "by argmax"}

    def describe(self):
        return super().describe() | {"samples": [{"input": f"x{i}", "reference": f"y{i}"} for i in range(2)]}


def make(**changes):
    short = Training(epochs=2, batch_size=16, drops=())
    base = Study(
        task=TalkingTask(), dense=short, finetune=short, numerics=CPU, checkpoints=(1, 2), ratios=(0.5,),
        finetune_seeds=(0, 1), permutations=1,
    )  # fmt: skip
    return replace(base, **changes)


def test_samples_have_their_own_table(tmp_path):
    results = run_study(make(), tmp_path, executor="serial", quiet=True)
    table = pd.read_csv(tmp_path / "samples.csv")
    assert len(table) == 2 * (2 + 2 * 2)  # two samples of two checkpoints and of four cells
    assert table["ratio"].isna().sum() == 4
    assert table["input"].tolist()[:2] == ["x0", "x1"]
    assert table["output"].str.match(r"class \d").all()
    for frame in (results.cells, results.checkpoints, results.curves):
        assert "samples" not in frame.columns
        assert set(frame["signature"].dropna()) == {"by argmax"}


def test_a_task_without_samples_writes_no_table(tmp_path):
    short = Training(epochs=1, batch_size=16, drops=())
    study = Study(task=ToyTask(), dense=short, finetune=short, numerics=CPU, checkpoints=(1,), ratios=(0.5,))
    run_study(study, tmp_path, executor="serial", quiet=True)
    assert not (tmp_path / "samples.csv").exists()


def test_a_schedule_can_go_on_from_the_checkpoint(tmp_path, monkeypatch):
    rising = Training(epochs=2, batch_size=16, schedule="inverse_sqrt", lr=0.1, warmup=100, drops=())
    seen, original = set(), stages.train  # of cells

    def spy(run, **options):
        seen.add((run.role, run.began))
        return original(run, **options)

    for module in (dense, stages):
        monkeypatch.setattr(module, "train", spy)
    for clock in ("restart", "continue"):
        study = make(dense=rising, finetune=replace(rising, clock=clock))
        run_study(study, tmp_path / clock, executor="serial", quiet=True)
    assert seen == {("dense", (0, 0)), ("finetune", (0, 0)), ("finetune", (1, 3)), ("finetune", (2, 6))}
