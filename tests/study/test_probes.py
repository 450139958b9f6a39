"""Probes and pair metrics of a study: what is measured before fine-tuning, and between fine-tuned models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
from torch import nn
from toy import CPU, ToyData, ToyTask

from twore.metrics import agreement, centred_logits, cka, prune_perturbation
from twore.pruning import apply_masks, make_masks, prunable_weights, recalibrate_batchnorm
from twore.study import Study, load_study, run_study, specs
from twore.study.stages import Context, load_checkpoint
from twore.training import Training
from twore.training.state import load_weights

SHORT = Training(epochs=2, batch_size=16, drops=())


@dataclass(frozen=True)
class LabelledTask(ToyTask):
    norm: bool = True

    def load(self, folder, device):
        return LabelledData(self, device)

    def build(self):
        model = super().build()
        return model if self.norm else nn.Sequential(model[0], model[2], model[3])


class LabelledData(ToyData):
    def targets(self, batch):
        return batch[1]


def study(task=LabelledTask(), **changes):
    base = Study(
        task=task, dense=SHORT, finetune=SHORT, numerics=CPU, checkpoints=(1, 2), ratios=(0.5, 0.9),
        finetune_seeds=(0, 1), permutations=1, keep_weights=True,
    )  # fmt: skip
    return replace(base, **changes)


def run(made, out):
    return run_study(made, out, executor="serial", quiet=True)


def test_a_probe_is_the_pruned_network_before_and_after_recalibration(tmp_path):
    made = study()
    probes = run(made, tmp_path).probes.set_index(["epoch", "ratio"])
    context = Context(tmp_path, None, "cpu", "test")
    model, data = load_checkpoint(context, made.trajectories[0], 2).eval(), made.task.load(None, torch.device("cpu"))
    weights = prunable_weights(model)
    row = probes.loc[(2, 0.9)]
    assert row["prune_perturbation"] == pytest.approx(prune_perturbation(model, 0.9))
    apply_masks(model, make_masks({name: w.detach() for name, w in weights.items()}, 0.9))
    x, y = next(data.plain())
    with torch.no_grad():
        assert row["pruned_score"] == pytest.approx(100 * float((model(x).argmax(1) == y).double().mean()))
        recalibrate_batchnorm(model, [x])
        logits = model(x)
        assert row["recalibrated_score"] == pytest.approx(100 * float((logits.argmax(1) == y).double().mean()))
        assert row["recalibrated_loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, y)), rel=1e-5)


def test_a_probe_says_what_it_costs(tmp_path):
    """48 examples pass forward twice; fine-tuning takes 2 epochs of 48 examples at three passes: 96 of 288."""
    assert set(run(study(), tmp_path).probes["cost"].round(12)) == {round(96 / 288, 12)}


def test_mask_distance_is_to_the_checkpoint_before(tmp_path):
    probes = run(study(), tmp_path).probes.set_index(["epoch", "ratio"])["mask_distance"]
    assert probes.loc[1].isna().all()
    assert probes.loc[2].between(0, 1).all()


def test_a_network_without_batchnorm_is_rescaled(tmp_path):
    probes = run(study(LabelledTask(hidden=32, norm=False)), tmp_path).probes
    assert probes["recalibrated_loss"].notna().all()
    assert not probes["recalibrated_loss"].equals(probes["pruned_loss"])


def test_a_task_without_targets_has_the_weights_only_ones(tmp_path):
    probes = run(study(ToyTask()), tmp_path).probes
    assert probes["prune_perturbation"].notna().all()
    assert "pruned_score" not in probes.columns


def test_an_old_study_gets_its_probes_when_it_is_finished_again(tmp_path):
    before = run(study(probe_batches=0), tmp_path)
    assert not (tmp_path / "probes.csv").exists()
    cells = before.cells["finished_at"].tolist()
    after = run(study(), tmp_path)
    assert len(after.probes) == 4
    assert after.cells["finished_at"].tolist() == cells  # nothing was fine-tuned again


def test_old_probes_are_made_again_and_nothing_else(tmp_path, monkeypatch):
    """As a finished study is when a version measures more: its cells' weights are long gone, and stay so."""
    made = study(keep_weights=False, landscape=True)
    monkeypatch.setattr(specs, "PROBED", specs.PROBED - 1)
    before = run(made, tmp_path)
    monkeypatch.undo()
    after = run(made, tmp_path)
    assert set(after.probes["key"]).isdisjoint(before.probes["key"])
    assert len(after.probes) == len(before.probes)
    for name in ("cells", "pairs", "checkpoints", "curves"):
        pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name))  # provenance too: the same records
    assert not list((tmp_path / "store").glob("weights/*"))


def test_landscape_adds_cka_and_connectivity_from_kept_weights(tmp_path):
    plain = run(study(), tmp_path)
    assert "cka" not in plain.pairs.columns
    found = run(study(landscape=True), tmp_path)
    made = load_study(tmp_path / "study.yaml")  # with the data's fingerprint, which is part of the keys
    assert found.cells["finished_at"].tolist() == plain.cells["finished_at"].tolist()
    group = next(made.trajectories[0].groups())
    data, outputs = made.task.load(None, torch.device("cpu")), []
    for key in group.cell_keys.values():
        model = made.task.build().eval()
        load_weights(tmp_path / "store" / "weights" / f"{key}.safetensors", model)
        with torch.no_grad():
            outputs.append(data.outputs(model, next(data.plain())))
    row = found.pairs[(found.pairs["epoch"] == 1) & (found.pairs["ratio"] == 0.5)].iloc[0]
    assert row["cka"] == pytest.approx(cka(*map(centred_logits, outputs)), abs=1e-6)
    assert row["agreement"] == pytest.approx(agreement(*outputs))
    assert (found.pairs[["loss_barrier", "score_barrier"]] >= 0).all(axis=None)
    assert pd.to_numeric(found.pairs["loss_lmc"]).notna().all()
