"""Checkpoints as people have them: Hugging Face folders of several architectures, state dicts, in any order."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from export.tiny_models import HEADS, build
from runs import STEPS, contents, hf_run, net, torch_run
from torch import nn

from twore.advise import Advice, WeightOptions, advise
from twore.metrics import mask_distance, spectral_metrics
from twore.pruning import prunable_weights

RATIOS = (0.5, 0.9)
QUICK = WeightOptions(permutations=1)


def ask(*paths: Path, cache: Path, **options: object) -> Advice:
    return advise(paths, ratios=RATIOS, cache=cache, weights=options.pop("weights", QUICK), **options)


def names(advice: Advice) -> list[str]:
    return [Path(path).name for path in advice.checkpoints["path"]]


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert", "marian", "vit"])
def test_architectures(name: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "run", partial(build, name), shard="10KB")
    before = contents(run)
    advice = ask(run, cache=tmp_path / "cache")
    assert contents(run) == before  # nothing is written there, and nothing touched
    assert names(advice) == ["checkpoint-100", "checkpoint-900", "checkpoint-1000"]
    last = type(build(name)).from_pretrained(run / "checkpoint-1000")
    weights = prunable_weights(last, exclude=HEADS.get(name))  # tied weights are left dense
    expected = spectral_metrics({n: w.detach() for n, w in weights.items()}, permutations=0, fits=False)
    for metric in ("stable_rank", "log_norm", "spectral_entropy"):
        assert advice.checkpoints[metric].iloc[-1] == pytest.approx(expected.values[metric]), metric
    assert any("tied" in note for note in advice.notes) == (name in HEADS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_as_it_is_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "run", partial(build, "vit", dtype))
    advice = ask(run, cache=tmp_path / "cache")
    last = build("vit", dtype)
    last.load_state_dict(type(last).from_pretrained(run / "checkpoint-1000", dtype=dtype).state_dict())
    found = spectral_metrics({n: w.detach() for n, w in prunable_weights(last).items()}, permutations=1)
    row = advice.checkpoints.iloc[-1]
    for name in ("stable_rank", "random_distance", "powerlaw_alpha", "log_norm"):
        assert row[name] == pytest.approx(found.values[name], rel=1e-9, nan_ok=True), name


def test_what_the_trainer_wrote_is_read(tmp_path: Path) -> None:
    advice = ask(hf_run(tmp_path / "run", partial(build, "vit")), cache=tmp_path / "cache")
    table = advice.checkpoints
    assert advice.unit == "epoch" and table["epoch"].tolist() == [1.0, 9.0, 10.0]
    assert table["step"].tolist() == list(STEPS)
    assert table["lr"].tolist() == [0.1, 0.1, 0.01] and table["rate_phase"].tolist() == [0, 0, 1]
    assert advice.metric == "eval_accuracy" and table["valid_score"].tolist() == [0.5, 0.9, 0.5]
    rules = advice.verdicts[0].trivial_rules
    assert rules["final checkpoint"] == 10 and rules["best dense validation score"] == 9
    assert rules["last before the first rate drop"] == 9


def test_a_loss_is_better_when_lower_and_another_metric_can_be_named(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "run", partial(build, "vit"))
    advice = ask(run, cache=tmp_path / "cache", weights=WeightOptions(spectra=False, metric="eval_loss"))
    assert advice.checkpoints["valid_score"].tolist() == [-0.3] * 3
    assert "stable_rank" not in advice.checkpoints
    with pytest.raises(ValueError, match="no evaluation is called 'eval_f1' .* eval_accuracy, eval_loss"):
        ask(run, cache=tmp_path / "cache", weights=WeightOptions(spectra=False, metric="eval_f1"))


def test_a_cnn_of_torch_save(tmp_path: Path) -> None:
    """Names as in timm's resnets: conv1, bn1, layer1.0.conv1, ..., fc."""
    torch.manual_seed(0)
    block = nn.ModuleDict({"conv1": nn.Conv2d(8, 8, 3), "bn1": nn.BatchNorm2d(8), "conv2": nn.Conv2d(8, 8, 3)})
    model = nn.ModuleDict(
        {"conv1": nn.Conv2d(3, 8, 7), "bn1": nn.BatchNorm2d(8), "layer1": nn.ModuleList([block]), "fc": nn.Linear(8, 9)}
    )
    run = torch_run(tmp_path / "run", model, ["checkpoint-2.pth", "checkpoint-10.pth"])
    advice = ask(run, cache=tmp_path / "cache")
    assert names(advice) == ["checkpoint-2.pth", "checkpoint-10.pth"] and advice.unit == "step"
    states = [torch.load(run / name, weights_only=True) for name in names(advice)]
    picked = [{n: s[n] for n in s if s[n].ndim > 1} for s in states]
    row = advice.probes[(advice.probes["epoch"] == 10) & (advice.probes["ratio"] == 0.9)].iloc[0]
    assert row["mask_distance"] == pytest.approx(mask_distance(picked[0], picked[1], 0.9))


def test_names_say_the_order(tmp_path: Path) -> None:
    cases = {
        "numbers": (["net_10.pt", "net_9.pt", "net_100.pt"], "step", [9, 10, 100]),
        "lightning": (["epoch=9-step=90.ckpt", "epoch=10-step=100.ckpt"], "epoch", [9, 10]),
        "depth": (["resnet50-e2.pt", "resnet50-e11.pt"], "epoch", [2, 11]),
        "words": (["b.pt", "a.pt"], "checkpoint", [1, 2]),
    }
    for folder, (files, unit, positions) in cases.items():
        advice = ask(torch_run(tmp_path / folder, net(), files), cache=tmp_path / "cache")
        assert (advice.unit, advice.checkpoints["epoch"].tolist()) == (unit, positions), folder


def test_any_mix_of_files_and_folders(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "run", partial(build, "vit"), state=False)
    moved = tmp_path / "elsewhere" / "checkpoint-5"
    moved.parent.mkdir()
    (run / "checkpoint-100").rename(moved)
    advice = ask(run, moved, cache=tmp_path / "cache")
    assert names(advice) == ["checkpoint-5", "checkpoint-900", "checkpoint-1000"]


def test_what_has_no_place_is_left_out_and_said(tmp_path: Path) -> None:
    run = torch_run(tmp_path / "run", net(), ["net-1.pt", "net-2.pt", "best.pt"])
    advice = ask(run, cache=tmp_path / "cache")
    assert names(advice) == ["net-1.pt", "net-2.pt"] and any("best.pt" in note for note in advice.notes)


def test_the_initialisation_is_measured_and_never_advised(tmp_path: Path) -> None:
    advice = ask(torch_run(tmp_path / "run", net(), ["epoch0.pt", "epoch1.pt", "epoch2.pt"]), cache=tmp_path / "c")
    assert advice.checkpoints["epoch"].tolist() == [0, 1, 2]
    assert set(advice.probes["epoch"]) == {1, 2}
    assert all(verdict.epoch != 0 for verdict in advice.verdicts)
    assert any("epoch0.pt is taken for the network before training" in note for note in advice.notes)


@pytest.mark.slow
def test_folders_that_the_trainer_made(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    import transformers as hf

    model = build("gpt2")
    model.save_pretrained = partial(model.save_pretrained, max_shard_size="10KB")
    rows = [{"input_ids": torch.arange(i % 7, i % 7 + 6), "labels": torch.arange(i % 7, i % 7 + 6)} for i in range(16)]
    arguments = hf.TrainingArguments(
        output_dir=str(tmp_path / "run"), num_train_epochs=3, per_device_train_batch_size=8, save_strategy="epoch",
        eval_strategy="epoch", logging_steps=1, report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = hf.Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    before = contents(tmp_path / "run")
    assert any("optimizer" in name for name in before) and any("00002" in name for name in before)
    advice = ask(tmp_path / "run", cache=tmp_path / "cache")
    assert contents(tmp_path / "run") == before
    assert advice.checkpoints["step"].tolist() == [2, 4, 6] and advice.unit == "epoch"
    assert advice.metric == "eval_loss" and advice.checkpoints["valid_score"].is_monotonic_increasing
    assert (advice.checkpoints["lr"].diff().dropna() < 0).all()
