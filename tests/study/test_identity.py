"""Stored results are found by these keys: a changed golden value orphans them. Change FORMAT knowingly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from twore.recipes.cifar_scaling import paper, quick
from twore.study import load_study, save_study
from twore.study.identity import KeysOf, canonical, key_of
from twore.training import Numerics, Training


def test_golden_keys():
    study = replace(quick(), numerics=Numerics("cpu", "float32"), data_fingerprint="sha256:golden")
    trajectory = study.trajectories[0]
    group = next(trajectory.groups())
    keys = [trajectory.key, trajectory.checkpoint_key(4), group.cell_key(0), group.pairs_key]
    assert keys == GOLDEN


# trajectory, checkpoint, cell, pairs
GOLDEN = ["c8ba0b75da11c50f867b", "5096a9be180b5dd1fc2a", "034916c2e77948160fa3", "8ab8b7494fd836290b27"]


def test_keys_of_many_values_are_those_of_each():
    shared = {"zeta": 'a "quoted" text', "finetune": Training(epochs=3, drops=(1,)), "none": None}
    keys = KeysOf("cell", shared, ("ratio", "epoch", "alpha"))
    for ratio, epoch, alpha in ((0.1, 3, 0), (1e-7, 160, -1), (0.0, 0, 12)):
        assert keys(ratio, epoch, alpha) == key_of("cell", {**shared, "epoch": epoch, "alpha": alpha, "ratio": ratio})
    assert keys(0.1, True, 0) == key_of("cell", {**shared, "epoch": True, "alpha": 0, "ratio": 0.1})
    with pytest.raises(TypeError, match="int64 cannot be part"):
        keys(0.1, np.int64(3), 0)


def test_equal_values_one_key_whatever_their_spelling():
    assert key_of("x", {"a": (1, 2), "b": 1.0}) == key_of("x", {"b": 1.0, "a": [1, 2]})
    assert key_of("x", 1) != key_of("y", 1)
    assert canonical(1) != canonical("1")


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Training)])
def test_every_training_field_counts(name):
    """No two different runs may share a place: changing any one field changes the key."""
    base = Training(epochs=200)
    value = getattr(base, name)
    other = {
        "optimizer": "adamw", "schedule": "constant", "betas": (0.5, 0.9), "drops": (1,), "clip": 1.0, "ema": 1.0,
        "clock": "continue",
    }.get(name) or (value / 2 if isinstance(value, float) else value + 1)  # fmt: skip
    assert key_of("x", base) != key_of("x", replace(base, **{name: other}))


def test_equal_studies_have_equal_keys(tmp_path):
    """40 and 40.0 are equal in a field of floats, so they must be one place; also after a journey through YAML."""
    study = replace(quick(), task=replace(quick().task, data_percent=40), ratios=(0, 0.5), data_fingerprint="d")
    same = replace(quick(), task=replace(quick().task, data_percent=40.0), ratios=(0.0, 0.5), data_fingerprint="d")
    assert study == same
    save_study(study, tmp_path / "study.yaml")
    read = load_study(tmp_path / "study.yaml")
    assert read == study
    for other in (same, read):
        a, b = study.trajectories[0], other.trajectories[0]
        assert a.key == b.key
        assert [g.pairs_key for g in a.groups()] == [g.pairs_key for g in b.groups()]


def test_a_field_added_later_leaves_old_keys_alone():
    @dataclass(frozen=True)
    class Before:
        kind = "thing"
        a: int = 1

    @dataclass(frozen=True)
    class After:
        kind = "thing"
        a: int = 1
        b: int = field(default=0, metadata={"since": "0.2"})

    assert key_of("x", After()) == key_of("x", Before())
    assert key_of("x", After(b=1)) != key_of("x", Before())


def test_what_cannot_be_written_down_is_refused():
    with pytest.raises(TypeError, match="function"):
        canonical(lambda: 0)


def test_names_and_kept_epochs_do_not_change_results():
    study = replace(quick(), data_fingerprint="d")
    renamed = replace(study, name="other", extra_checkpoints=(), keep_weights=True)
    assert [t.key for t in study.trajectories] == [t.key for t in renamed.trajectories]
    assert next(study.trajectories[0].groups()).cell_keys == next(renamed.trajectories[0].groups()).cell_keys


@pytest.mark.parametrize("change", [{"permutations": 3}, {"dense_seeds": (5,)}, {"data_fingerprint": "e"}])
def test_what_changes_numbers_changes_keys(change):
    study = replace(quick(), data_fingerprint="d")
    a, b = study.trajectories[0], replace(study, **change).trajectories[0]
    assert a.checkpoint_key(4) != b.checkpoint_key(4)


def test_paper_counts():
    trajectories = paper().trajectories
    assert len({t.key for t in trajectories}) == 7
    cells = [key for t in trajectories for group in t.groups() for key in group.cell_keys.values()]
    assert len(cells) == len(set(cells)) == 3024
