"""Status of run folders made by hand: counts, pace, time left, failures; it reads little and touches nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from records import cell, contents, fill, provenance

from twore.study import ConfigError, Store, save_study, status
from twore.study.status import Count, in_words, read_status


def test_a_finished_study(toy_study, tmp_path):
    fill(toy_study, tmp_path)
    found = read_status(tmp_path)
    assert found.state == "finished"
    assert found.trainings == Count(total=2, done=2)
    assert found.cells == Count(total=16, done=16)
    assert found.checkpoints == Count(total=6, done=6)
    assert found.pairs == Count(total=8, done=8)
    assert found.hours_left == 0
    assert found.cells_per_hour == pytest.approx(60)
    assert "finished" in in_words(found)


def test_not_started(toy_study, tmp_path):
    save_study(toy_study, tmp_path / "study.yaml")
    found = read_status(tmp_path)
    assert found.state == "not started"
    assert found.cells == Count(total=16, missing=16)
    assert found.cells_per_hour is None
    assert found.hours_left is None


def test_pace_and_time_left(toy_study, tmp_path):
    """12 of 16 cells, one a minute: 4 minutes are left."""
    fill(toy_study, tmp_path, lambda group: not (group.trajectory.seed == 1 and group.epoch == 4))
    found = read_status(tmp_path)
    assert found.state == "stopped"
    assert found.cells == Count(total=16, done=12, missing=4)
    assert found.pairs.missing == 2
    assert found.cells_per_hour == pytest.approx(60)
    assert found.hours_left == pytest.approx(4 / 60)
    assert "12 of       16" in in_words(found)
    assert "about 4.0 min left" in in_words(found)


def test_a_pause_is_no_work(toy_study, tmp_path):
    store = fill(toy_study, tmp_path, lambda group: group.trajectory.seed == 0)
    keys = [key for group in toy_study.trajectories[0].groups() for key in group.cell_keys.values()]
    for index, key in enumerate(keys):  # the last four after a night
        store.put("cells", key, cell(seconds=60 * index + (30_000 if index >= 4 else 0)))
    assert read_status(tmp_path).cells_per_hour == pytest.approx(60)


def test_failures(toy_study, tmp_path):
    store = fill(toy_study, tmp_path, lambda group: group.ratio < 0.8)
    one, other = toy_study.trajectories
    group = next(group for group in one.groups() if group.ratio == 0.8)
    store.drop("trajectories", other.key)
    for key in (group.pairs_key, other.key):
        store.put("failures", key, {"reason": "OSError: full\nmore", "attempts": 2, "provenance": provenance()})
    found = read_status(tmp_path)
    assert found.trainings == Count(total=2, done=1, failed=1)
    assert found.cells == Count(total=16, done=8, failed=2 + 4, missing=2)  # the group's, and all of the dense run's
    assert [failure["key"] for failure in found.failures] == [group.pairs_key, other.key]
    words = in_words(found)
    assert "6 failed" in words
    assert "epoch=2 ratio=0.8: OSError: full (2 attempts)" in words


@pytest.mark.parametrize(("ago", "state"), [(3.0, "running"), (10_000.0, "stopped")])
def test_running_jobs(toy_study, tmp_path, ago, state):
    store = fill(toy_study, tmp_path, lambda group: False)
    report = {"what": "dense hidden=8 seed=0", "epoch": 3, "epochs": 4, "train_loss": 0.5, "rate": 2010.0, "host": "a"}
    store.put("running", "key", report | {"at": time.time() - ago})
    found = read_status(tmp_path)
    assert found.state == state
    assert ("dense hidden=8 seed=0: epoch 3/4, loss 0.5, 2,010/s on a" in in_words(found)) == (state == "running")


def test_a_living_claim_means_running(toy_study, tmp_path):
    store = fill(toy_study, tmp_path, lambda group: False)
    (store.claims / "process-1").mkdir(parents=True)
    (store.claims / "process-1" / "host~1~2~3~4").touch()
    assert read_status(tmp_path).state == "running"


def test_cells_are_weighed_by_their_cost(toy_study, tmp_path, monkeypatch):
    """Cells of the second setting cost three times as much: 8 minutes of pace become 24 for its 8 cells."""
    weights = {8: (1.0, 1.0), 16: (1.0, 3.0)}
    monkeypatch.setattr(status, "job_seconds", lambda study, pace: weights[study.task.hidden])
    study = replace(toy_study, dense_seeds=(0,), settings=({}, {"task.hidden": 16}))
    fill(study, tmp_path, lambda group: group.trajectory.columns["hidden"] == 8)
    assert read_status(tmp_path).hours_left == pytest.approx(24 / 60)


def test_json_has_the_documented_fields(toy_study, tmp_path):
    store = fill(toy_study, tmp_path, lambda group: group.epoch == 2)
    nothing = float("nan")
    store.put("running", "key", {"what": "dense", "epoch": 1, "epochs": 2, "train_loss": nothing, "at": time.time()})
    text = json.dumps(read_status(tmp_path).as_json(), allow_nan=False)
    value = json.loads(text)
    assert all(f'"{name}"' in status.__doc__ for name in value)
    assert value["cells"] == {"total": 16, "done": 8, "failed": 0, "missing": 8}
    assert value["running"][0]["train_loss"] is None
    assert value["last_cell_at"].startswith("2026-01-01T00:")


def test_it_touches_nothing_and_reads_little(toy_study, tmp_path, monkeypatch):
    store = fill(toy_study, tmp_path)
    key = next(iter(store.keys("cells")))
    store.path("cells", key).write_text("half a rec")
    before, read = contents(tmp_path), []
    original = status.read_record
    monkeypatch.setattr(status, "read_record", lambda path: read.append(path) or original(path))
    monkeypatch.setattr(status, "SAMPLE", 5)
    found = read_status(tmp_path)
    assert contents(tmp_path) == before
    assert len(read) <= 5
    assert found.cells.done == 16
    assert found.cells_per_hour is not None


def test_no_study(tmp_path):
    with pytest.raises(ConfigError, match="no study file"):
        read_status(tmp_path)
    assert not Store(tmp_path).root.exists()
