from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from toy import CPU, ToyTask

from twore.pruning.spec import Pruning
from twore.study.specs import with_overrides


def test_expansion(toy_study):
    assert len(toy_study.trajectories) == 2
    groups = list(toy_study.trajectories[0].groups())
    assert [(g.epoch, g.ratio) for g in groups] == [(2, 0.3), (2, 0.8), (4, 0.3), (4, 0.8)]
    assert groups[0].pairs == [(0, 1)]
    assert toy_study.trajectories[0].epochs == [0, 2, 4]


def test_settings_change_any_field_and_become_columns(toy_study):
    study = replace(toy_study, settings=({}, {"task.hidden": 16}, {"finetune.lr": 0.01}))
    assert study.columns == ("hidden", "finetune_lr")
    rows = [(t.columns["hidden"], t.columns["finetune_lr"], t.seed) for t in study.trajectories]
    assert rows == [(8, 0.05, 0), (8, 0.05, 1), (16, 0.05, 0), (16, 0.05, 1), (8, 0.01, 0), (8, 0.01, 1)]
    keys = [t.key for t in study.trajectories]
    assert keys[0] == keys[4]  # fine-tuning does not change the dense run
    assert keys[0] != keys[2]


def test_a_setting_may_have_its_own_checkpoints(toy_study):
    study = replace(toy_study, settings=({"dense.epochs": 8, "checkpoints": [4, 8]},))
    assert study.trajectories[0].epochs == [0, 4, 8]


def test_overrides_take_effect_together_whatever_their_order(toy_study):
    for overrides in ({"dense.epochs": 8, "checkpoints": [8]}, {"checkpoints": [8], "dense.epochs": 8}):
        assert with_overrides(toy_study, overrides).checkpoints == (8,)


def test_a_setting_may_have_its_own_dense_seeds(toy_study):
    study = replace(toy_study, settings=({"task.hidden": 16, "dense_seeds": [5]},))
    assert [t.seed for t in study.trajectories] == [5]
    assert study.columns == ("hidden",)


def test_settings_that_differ_in_axes_alone_are_refused(toy_study):
    with pytest.raises(ValueError, match="one setting"):
        replace(toy_study, settings=({}, {"ratios": [0.5]})).trajectories  # noqa: B018


def test_schedules_need_fine_tuning(toy_study):
    with pytest.raises(ValueError, match="gradual"):
        replace(toy_study, pruning=Pruning(schedule="gradual"), finetune=replace(toy_study.finetune, epochs=0))


@dataclass(frozen=True)
class Lengthy(ToyTask):
    """Says that batches of two seeds differ in shape, in one of its settings."""

    @property
    def equal_batches(self) -> bool:
        return self.hidden != 16


def test_a_task_whose_batches_differ_in_shape_has_no_dense_stacks(toy_study):
    both = replace(toy_study, numerics=replace(CPU, stack=2, dense_stack=2))
    study = replace(both, task=Lengthy())
    words = r"dense runs of Lengthy cannot be trained in one stack.*use numerics\.dense_stack 1"
    with pytest.raises(ValueError, match=words):
        replace(study, task=Lengthy(hidden=16))
    with pytest.raises(ValueError, match=words):
        replace(study, settings=({}, {"task.hidden": 16}))
    assert replace(study, settings=({"task.hidden": 4},)).trajectories
    assert replace(both, settings=({"task.hidden": 16},)).trajectories  # a task that says nothing
    assert replace(toy_study, task=Lengthy(hidden=16)).trajectories


def test_a_study_is_a_value(toy_study):
    assert hash(toy_study) == hash(replace(toy_study))
    assert hash(toy_study) != hash(replace(toy_study, permutations=3))


def test_the_same_setting_twice_is_one(toy_study):
    assert len(replace(toy_study, settings=({}, {"task.hidden": 8})).trajectories) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"task.hiden": 3}, "did you mean task.hidden"),
        ({"tusk.hidden": 3}, "did you mean task.hidden"),
        ({"dense.epochs": 1}, "checkpoints"),
        ({"numerics.precision": "auto"}, "cannot differ"),
        ({"data_fingerprint": "x"}, "cannot differ"),
        ({"dense.lr": "fast"}, "dense.lr"),
        ({"task.hidden": True}, "task.hidden"),
        ({"dense": 3}, "cannot differ"),
    ],
)
def test_a_wrong_setting_is_refused_when_the_study_is_made(toy_study, overrides, words):
    with pytest.raises(ValueError, match=words):
        replace(toy_study, settings=(overrides,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoints", (2, 99)),
        ("checkpoints", ()),
        ("checkpoints", (2, 2)),
        ("ratios", (1.0,)),
        ("ratios", (-0.1,)),
        ("dense_seeds", (-1,)),
        ("finetune_seeds", (0, 0)),
        ("extra_checkpoints", (99,)),
        ("permutations", 0),
        ("settings", ()),
    ],
)
def test_senseless_axes_are_refused(toy_study, field, value):
    with pytest.raises(ValueError, match=field):
        replace(toy_study, **{field: value})


def test_overrides_leave_the_study_alone(toy_study):
    changed = with_overrides(toy_study, {"task.hidden": 4, "finetune.epochs": 1})
    assert (changed.task.hidden, changed.finetune.epochs) == (4, 1)
    assert (toy_study.task.hidden, toy_study.finetune.epochs) == (8, 2)
