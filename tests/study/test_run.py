"""The whole study on the toy task: tables, resume, identity of results across executors and kills."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from twore.study import ConfigError, Store, run_study
from twore.study.tables import PROVENANCE, TABLES


def table_without_provenance(out: Path, name: str = "results.csv") -> str:
    """The file's text without time and host columns."""
    return pd.read_csv(out / name, dtype=str).drop(columns=list(PROVENANCE), errors="ignore").to_csv(index=False)


def run(study, out, **options):
    return run_study(study, out, **{"executor": "serial", "quiet": True, **options})


def test_tables(toy_study, tmp_path):
    results = run(toy_study, tmp_path)
    cells = results.cells
    assert len(cells) == 16
    assert list(cells.columns[:9]) == [
        "setting",
        "hidden",
        "dense_seed",
        "epoch",
        "ratio",
        "density",
        "finetune_seed",
        "valid_score",
        "score",
    ]
    assert list(cells.columns[-5:]) == ["key", *PROVENANCE]
    assert (cells["revived"] == 0).all()
    assert cells["density"].unique() == pytest.approx([1 - 31 / 104, 1 - 83 / 104])  # 80 and 24 weights: 24+7, 64+19
    assert len(results.checkpoints) == 6
    assert results.checkpoints["pruned"].tolist() == [False, True, True] * 2
    assert results.checkpoints["random_distance"].notna().all()
    assert results.pairs["pair"].tolist() == ["0-1", "mean"] * 8
    assert results.curves["epoch"].tolist() == [0, 1, 2, 3, 4] * 2
    assert results.failures.empty
    for name in ("cells", "checkpoints", "pairs", "curves"):
        assert len(pd.read_csv(tmp_path / TABLES[name])) == len(getattr(results, name))
    assert not (tmp_path / "failures.csv").exists()
    assert not list((tmp_path / "store" / "weights").glob("*"))
    assert not list((tmp_path / "store" / "running").glob("*"))


def test_a_second_run_computes_nothing(toy_study, tmp_path):
    run(toy_study, tmp_path)
    before = (tmp_path / "results.csv").read_bytes()
    run(toy_study, tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == before  # finished_at included


def test_workers_and_executors_agree(toy_study, tmp_path):
    run(toy_study, tmp_path / "serial")
    run(toy_study, tmp_path / "two", executor="process", workers=2)
    for name in ("results.csv", "pairs.csv", "checkpoints.csv", "curves.csv"):
        assert table_without_provenance(tmp_path / "serial", name) == table_without_provenance(tmp_path / "two", name)


def test_a_failed_run_is_said_and_the_others_go_on(toy_study, tmp_path, capsys):
    study = replace(toy_study, settings=({"task.poison": 16}, {"task.poison": 16, "task.hidden": 16}))
    results = run(study, tmp_path)
    assert results.cells["hidden"].unique().tolist() == [8]
    assert len(results.failures) == 2
    assert results.failures["reason"].str.contains("DivergedError").all()
    assert not results.cells.isna().any(axis=None)
    said = capsys.readouterr().err
    assert said.count("failed: ") == 2
    assert "not started: 16 cells" in said
    assert "hidden=16" in said
    assert (tmp_path / "failures.csv").exists()


def test_a_failure_goes_when_it_goes_right(toy_study, tmp_path, monkeypatch):
    from twore.study import dense

    def broken(*_args, **_options):
        raise OSError("disk on fire")

    with monkeypatch.context() as patched:
        patched.setattr(dense, "score_model", broken)
        assert len(run(toy_study, tmp_path).failures) == 2  # both dense runs
    assert run(toy_study, tmp_path).failures.empty
    assert not (tmp_path / "failures.csv").exists()


def test_axes_may_grow_and_shrink(toy_study, tmp_path):
    small = replace(toy_study, ratios=(0.3,), dense_seeds=(0,))
    first = run(small, tmp_path).cells
    grown = run(toy_study, tmp_path).cells
    assert len(grown) == 16
    both = grown.merge(first, on="key", suffixes=("", "_before"))
    assert len(both) == len(first) == 4
    assert (both["finished_at"] == both["finished_at_before"]).all()
    assert len(run(small, tmp_path).cells) == 4


def test_more_checkpoints_retrain_and_keep_the_cells(toy_study, tmp_path):
    first = run(replace(toy_study, checkpoints=(4,)), tmp_path).cells
    grown = run(toy_study, tmp_path).cells
    same = grown.merge(first, on="key", suffixes=("", "_before"))
    assert len(grown) == 16
    assert len(same) == 8
    assert (same["finished_at"] == same["finished_at_before"]).all()


def test_another_study_in_the_same_folder_is_refused(toy_study, tmp_path):
    run(replace(toy_study, dense_seeds=(0,)), tmp_path)
    before = (tmp_path / "results.csv").read_bytes()
    with pytest.raises(ConfigError, match="dense.lr 0.05 -> 0.01"):
        run(replace(toy_study, dense=replace(toy_study.dense, lr=0.01)), tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == before


def test_out_that_is_a_file_is_refused(toy_study, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="name a folder"):
            run(toy_study, out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("damage", ["checkpoint", "cell", "pairs", "trajectory"])
def test_a_damaged_file_is_found_and_made_again(toy_study, tmp_path, damage):
    study = replace(toy_study, dense_seeds=(0,))
    run(study, tmp_path)
    before = {name: table_without_provenance(tmp_path, name) for name in ("results.csv", "pairs.csv")}
    store, trajectory = Store(tmp_path), study_in(tmp_path).trajectories[0]
    group = next(trajectory.groups())
    path = {
        "checkpoint": store.checkpoint(trajectory.key, 2),
        "cell": store.path("cells", group.cell_key(0)),
        "pairs": store.path("pairs", group.pairs_key),
        "trajectory": store.path("trajectories", trajectory.key),
    }[damage]
    path.write_bytes(path.read_bytes()[:-20])
    if damage == "checkpoint":
        store.drop("cells", group.cell_key(1))  # so that something needs the checkpoint
    run(study, tmp_path)
    assert {name: table_without_provenance(tmp_path, name) for name in before} == before
    assert path.with_name(path.name + ".corrupt").exists()


def study_in(out):
    from twore.study import load_study

    return load_study(out / "study.yaml")


def test_kept_weights_have_their_zeros(toy_study, tmp_path):
    from twore.files import read_tensors
    from twore.pruning import load_masks

    study = replace(toy_study, keep_weights=True, dense_seeds=(0,), finetune_seeds=(0,))
    results = run(study, tmp_path)
    assert results.pairs.empty
    store = Store(tmp_path)
    for key in results.cells["key"]:
        weights, _ = read_tensors(store.weights(key))
        for name, mask in load_masks(store.masks(key)).items():
            assert torch.count_nonzero(weights[name][~mask]) == 0
            assert torch.count_nonzero(weights[name][mask]) == int(mask.sum())


def test_moving_averages_lie_beside_the_checkpoints(toy_study, tmp_path):
    from twore.files import read_tensors

    study = replace(toy_study, dense=replace(toy_study.dense, ema=1.0), dense_seeds=(0,))
    run(study, tmp_path)
    store, trajectory = Store(tmp_path), study_in(tmp_path).trajectories[0]
    for epoch in study.checkpoints:
        raw, _ = read_tensors(store.checkpoint(trajectory.key, epoch))
        average, about = read_tensors(store.average(trajectory.key, epoch))
        assert about["epoch"] == epoch
        assert raw.keys() == average.keys()
        assert not torch.equal(raw["0.weight"], average["0.weight"])
        assert torch.equal(raw["1.running_mean"], average["1.running_mean"])


def test_a_run_that_diverges_in_its_last_update_is_a_failure(toy_study, tmp_path):
    """One update an epoch at an absurd rate: the loss was finite when it was seen, the network no longer is."""
    last = replace(toy_study.finetune, epochs=1, batch_size=48, lr=1e30)
    results = run(replace(toy_study, finetune=last, dense_seeds=(0,)), tmp_path)
    assert results.cells.empty
    assert len(results.failures) == 4
    assert results.failures["reason"].str.contains("DivergedError").all()


def test_curves_for_tensorboard(toy_study, tmp_path):
    pytest.importorskip("tensorboard")
    run(replace(toy_study, dense_seeds=(0,), ratios=(0.3,), checkpoints=(4,)), tmp_path, tensorboard=True)
    written = [path.parent.name.split("-")[0] for path in (tmp_path / "tensorboard").glob("*/events*")]
    assert sorted(written) == ["cell", "cell", "dense"]


def test_ratio_zero_is_fine_tuning_alone(toy_study, tmp_path):
    results = run(replace(toy_study, ratios=(0.0,), dense_seeds=(0,)), tmp_path)
    assert (results.cells["density"] == 1).all()
    assert results.cells["score"].map(math.isfinite).all()
