"""Joining stores: everything arrives, equal results agree whatever the host, conflicts and mix-ups are refused."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from records import cell, contents, fill, provenance

from twore.files import write_tensors
from twore.study import ConfigError, Store
from twore.study.merge import merge


@pytest.fixture
def halves(toy_study, tmp_path):
    """Two folders with all dense runs and the cells of one ratio each, as two shards without a shared disk."""
    for name, ratio in (("a", 0.3), ("b", 0.8)):
        fill(toy_study, tmp_path / name, lambda group, ratio=ratio: group.ratio == ratio)
    return [tmp_path / "a", tmp_path / "b"]


def first_cell(study, ratio=0.3):
    return next(group for group in study.trajectories[0].groups() if group.ratio == ratio).cell_key(0)


def test_two_halves_make_a_whole(toy_study, tmp_path, halves):
    before, out = [contents(folder) for folder in halves], tmp_path / "out"
    merged = merge(halves, out)
    assert (merged.cells, merged.missing, merged.broken) == (16, 0, [])
    assert [contents(folder) for folder in halves] == before
    fill(toy_study, tmp_path / "whole")
    results, whole = (pd.read_csv(folder / "results.csv") for folder in (out, written(tmp_path / "whole", toy_study)))
    columns = ["dense_seed", "epoch", "ratio", "finetune_seed", "score", "key"]
    assert results[columns].equals(whole[columns])  # in the order of the plan
    assert results["host"].unique().tolist() == ["a", "b"]
    for name in ("checkpoints", "pairs", "curves"):
        assert len(pd.read_csv(out / f"{name}.csv")) == len(pd.read_csv(tmp_path / "whole" / f"{name}.csv"))
    store = Store(out)
    assert all(store.checkpoint(t.key, epoch).exists() for t in toy_study.trajectories for epoch in t.epochs)


def written(folder, study):
    from twore.study import read_results

    read_results(study, Store(folder)).write(folder)
    return folder


def test_again_is_free_and_may_add(tmp_path, halves):
    out = tmp_path / "out"
    assert merge(halves[:1], out).missing == 8
    assert merge(halves[1:], out).missing == 0
    before = contents(out / "store")
    assert merge(halves, out).copied == 0
    assert contents(out / "store") == before


@pytest.mark.parametrize("kind", ["cell", "checkpoint"])
def test_different_numbers_are_refused(toy_study, tmp_path, halves, kind):
    if kind == "cell":
        key = first_cell(toy_study)
        Store(halves[1]).put("cells", key, cell(77.0))
        words = f"different numbers for cells {key} .score 1.0 and 77.0."
    else:
        words = "epoch-0002.safetensors"
        key = toy_study.trajectories[0].key
        write_tensors(Store(halves[1]).checkpoint(key, 2), {"w": torch.zeros(3)}, {"epoch": 2})
    with pytest.raises(ConfigError, match=words):
        merge(halves, tmp_path / "out")
    assert not (tmp_path / "out" / "store").exists()


def test_equal_numbers_keep_the_first(toy_study, tmp_path, halves):
    key = first_cell(toy_study)
    Store(halves[1]).put("cells", key, cell(1.0, seconds=5e6, host="late"))
    merge(halves, tmp_path / "out")
    results = pd.read_csv(tmp_path / "out" / "results.csv", index_col="key")
    assert results.loc[key, "host"] == "a"


def test_different_studies_are_refused(toy_study, tmp_path, halves):
    fill(replace(toy_study, dense=replace(toy_study.dense, lr=0.01)), tmp_path / "c")
    with pytest.raises(ConfigError, match=r"different studies \(dense.lr 0.05 and 0.01\)"):
        merge([*halves, tmp_path / "c"], tmp_path / "out")
    fill(replace(toy_study, name="another name"), tmp_path / "d")
    assert merge([*halves, tmp_path / "d"], tmp_path / "out").study.name == "toy"


@pytest.mark.parametrize("out", ["a", "a/below"])
def test_inputs_are_not_written_to(tmp_path, halves, out):
    before = contents(halves[0])
    with pytest.raises(ConfigError, match="name another folder"):
        merge(halves, tmp_path / out)
    assert contents(halves[0]) == before


def test_damaged_files_are_left_out(toy_study, tmp_path, halves):
    key, shared = first_cell(toy_study), toy_study.trajectories[0].key
    path = Store(halves[0]).path("cells", key)
    path.write_bytes(path.read_bytes()[:-5])
    weights = Store(halves[0]).checkpoint(shared, 2)
    weights.write_bytes(weights.read_bytes()[:-5] + b"12345")
    merged = merge(halves, tmp_path / "out")
    assert sorted(merged.broken) == sorted([str(path), str(weights)])
    assert merged.missing == 1
    good = Store(halves[1]).checkpoint(shared, 2).read_bytes()
    assert Store(tmp_path / "out").checkpoint(shared, 2).read_bytes() == good  # the other folder has it intact
    assert path.exists()
    assert not list(halves[0].rglob("*.corrupt"))


def test_work_in_flight_stays_behind(toy_study, tmp_path, halves):
    store = Store(halves[0])
    write_tensors(store.weights("half"), {"w": torch.zeros(1)})
    write_tensors(store.run_state("half"), {"w": torch.zeros(1)})
    store.put("running", "half", {"what": "dense", "at": 0.0})
    merge(halves, tmp_path / "out")
    assert not list((tmp_path / "out" / "store").glob("weights/*"))
    assert not list((tmp_path / "out" / "store").glob("running/*"))


def test_failures_of_unfinished_jobs_come_along(toy_study, tmp_path, halves):
    """A group that one shard failed on and another finished is no failure; one that nobody finished is."""
    groups = {group.ratio: group for group in toy_study.trajectories[0].groups()}
    Store(halves[1]).drop("cells", groups[0.8].cell_key(0))
    for group in groups.values():
        record = {"reason": "OSError: full", "attempts": 1, "details": "", "provenance": provenance()}
        Store(halves[1 if group.ratio == 0.3 else 0]).put("failures", group.pairs_key, record)
    merge(halves, tmp_path / "out")
    assert Store(tmp_path / "out").keys("failures") == {groups[0.8].pairs_key}
    assert len(pd.read_csv(tmp_path / "out" / "failures.csv")) == 1


@pytest.mark.slow
def test_shards_that_ran_apart_equal_one_run(toy_study, tmp_path):
    from test_run import run, table_without_provenance

    run(toy_study, tmp_path / "whole")
    shards = [tmp_path / str(i) for i in (1, 2, 3)]
    for i, shard in enumerate(shards, start=1):
        run(toy_study, shard, shard=(i, 3))
    assert merge(shards, tmp_path / "out").missing == 0
    for name in ("results.csv", "pairs.csv", "checkpoints.csv", "curves.csv"):
        assert table_without_provenance(tmp_path / "out", name) == table_without_provenance(tmp_path / "whole", name)
