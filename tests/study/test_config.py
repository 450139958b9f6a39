from __future__ import annotations

from dataclasses import replace

import pytest

from twore.recipes.cifar_scaling import cpu, paper, quick
from twore.study import ConfigError, load_study, save_study


@pytest.mark.parametrize("make", [quick, cpu, paper])
def test_a_study_comes_back_from_yaml_equal(tmp_path, make):
    study = make()
    save_study(study, tmp_path / "study.yaml")
    assert load_study(tmp_path / "study.yaml") == study


def test_a_users_own_task_comes_back_too(tmp_path, toy_study):
    study = replace(toy_study, settings=({}, {"task.hidden": 16}))
    save_study(study, tmp_path / "study.yaml")
    assert "toy:ToyTask" in (tmp_path / "study.yaml").read_text()
    assert load_study(tmp_path / "study.yaml") == study


def test_a_short_file_takes_the_reports_values(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("task: {kind: cifar, depth: 8}\nfinetune: {epochs: 3}\n")
    study = load_study(path)
    assert (study.task.depth, study.finetune.epochs, study.finetune.lr) == (8, 3, 1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: [", "not a YAML file"),
        ("name: x\n", "needs a task"),
        ("task: {kind: cifr}\n", "did you mean cifar"),
        ("task: {kind: 'nowhere:Task'}\n", "cannot be imported"),
        ("task: {kind: cifar, dept: 8}\n", "dept"),
        ("task: {kind: cifar, depth: deep}\n", "task.depth"),
        ("task: {kind: cifar}\ndense: {lr: fast}\n", "dense.lr"),
        ("task: {kind: cifar}\nratios: [0.5, 1.5]\n", "ratios"),
        ("task: {kind: cifar}\nratio: [0.5]\n", "ratio"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no study file"):
        load_study(tmp_path / "none.yaml")
