"""A study's own checkpoints, advised at each level, give the scoreboard's answer for the study's own tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from labelled import RATIOS, LabelledTask, labelled_study, stored
from torch import nn
from toy import CPU

from twore.advise import Advice, Functions, Pilot, TaskProbe, advise
from twore.advise.levels import rule_of, shortlist
from twore.analysis.settings import SettingTables, settings_of
from twore.study import Results, run_study

STUDY = labelled_study()
PROBE = TaskProbe(LabelledTask(), numerics=CPU)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("run")
    return out, run_study(STUDY, out, executor="serial", quiet=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def same(table: pd.DataFrame, other: pd.DataFrame, columns: list[str], by: list[str]) -> None:
    both = table[[*by, *columns]].merge(other, on=by, suffixes=("", "_study"), validate="one_to_one")
    assert len(both) == len(table) > 0
    for name in columns:
        np.testing.assert_allclose(both[name], both[f"{name}_study"], rtol=1e-6, err_msg=name)


def picks(advice: Advice) -> dict[float, float | None]:
    return {verdict.ratio: verdict.epoch for verdict in advice.verdicts}


def seen(out: Path) -> SettingTables:
    """What a pilot sees of the study: one fine-tune seed, the score that choices are made on."""
    setting = settings_of(out)[0]
    one = setting.results[setting.results["finetune_seed"] == 0]
    return replace(setting, results=one.assign(score=one["valid_score"]))


def test_weights(run: tuple[Path, Results], cache: Path) -> None:
    out, results = run
    advice = advise(stored(STUDY, out), ratios=RATIOS, cache=cache)
    assert advice.level == "weights" and advice.unit == "epoch"
    columns = ["random_distance", "random_distance_stderr", "powerlaw_alpha", "stable_rank", "etpl_lambda"]
    same(advice.checkpoints, results.checkpoints, [*columns, "distance_from_init"], ["epoch"])
    same(advice.checkpoints, results.checkpoints, ["distance_from_previous"], ["epoch"])
    same(advice.probes, results.probes, ["mask_distance", "prune_perturbation"], ["epoch", "ratio"])
    assert picks(advice) == rule_of("weights").pick(settings_of(out)[0])
    assert all(verdict.abstained for verdict in advice.verdicts)  # the scoreboard shows no skill


def test_batches(run: tuple[Path, Results], cache: Path) -> None:
    out, results = run
    advice = advise(stored(STUDY, out), ratios=RATIOS, cache=cache, probe=PROBE)
    columns = ["pruned_score", "pruned_loss", "recalibrated_score", "recalibrated_loss"]
    same(advice.probes, results.probes, columns, ["epoch", "ratio"])
    assert advice.level == "batches" and picks(advice) == rule_of("batches").pick(settings_of(out)[0])


def test_functions_of_ones_own_score_as_the_task_does(run: tuple[Path, Results], cache: Path) -> None:
    out, results = run
    data = LabelledTask().load(None, torch.device("cpu"))

    def score(model: nn.Module, batches: list) -> float:
        right = [(model(x).argmax(1) == y).double().mean().item() for x, y in batches]
        return 100 * sum(right) / len(right)

    probe = Functions(LabelledTask().build, data.plain, score)
    advice = advise(stored(STUDY, out), ratios=RATIOS, cache=cache, probe=probe)
    same(advice.probes, results.probes, ["pruned_score", "recalibrated_score"], ["epoch", "ratio"])


def test_pilot(run: tuple[Path, Results], cache: Path) -> None:
    out, results = run
    pilot = Pilot(STUDY.finetune, k=3, executor="serial")
    advice = advise(stored(STUDY, out), ratios=RATIOS, cache=cache, probe=PROBE, pilot=pilot)
    same(advice.cells, results.cells, ["score", "valid_score"], ["epoch", "ratio", "finetune_seed"])
    wanted = {(ratio, epoch) for ratio, epochs in shortlist(seen(out), 3).items() for epoch in epochs}
    assert set(zip(advice.cells["ratio"], advice.cells["epoch"])) == wanted
    assert advice.level == "pilot" and picks(advice) == rule_of("pilot", 3).pick(seen(out))
