"""Checkpoints put into models that a user built, and what the spectra of a model cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from export.tiny_models import build, logits
from runs import hf_run, net, torch_run
from torch import nn

from twore.advise import Functions, advise
from twore.advise.cost import affordable_permutations, duration, spectral_operations
from twore.advise.finding import Found
from twore.advise.kinds import MIXED, kind_of, stored_kind
from twore.advise.models import fill_model
from twore.checkpoints import CheckpointError, open_checkpoint


def found(path: Path) -> Found:
    return Found(path, 1.0)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model."])
def test_a_wrappers_prefix_does_not_matter(prefix: str, tmp_path: Path) -> None:
    model = net()
    torch.save({prefix + name: value * 2 for name, value in model.state_dict().items()}, tmp_path / "a.pt")
    filled = fill_model(net(), found(tmp_path / "a.pt"))
    assert not filled.training
    assert torch.equal(filled.state_dict()["0.weight"], 2 * model.state_dict()["0.weight"])


def test_another_model_is_refused(tmp_path: Path) -> None:
    run = torch_run(tmp_path, net(), ["a.pt"])
    with pytest.raises(CheckpointError, match=r"does not fit the model that was built \(it has no bias\)"):
        fill_model(nn.Linear(3, 4), found(run / "a.pt"))
    with pytest.raises(CheckpointError, match=r"0.bias is \(24,\), and the model has \(32,\)|0.weight is \(24, 16\)"):
        fill_model(net(width=32), found(run / "a.pt"))


def test_a_tied_weight_that_is_stored_once(tmp_path: Path) -> None:
    run = hf_run(tmp_path, partial(build, "gpt2"))
    filled = fill_model(build("gpt2"), found(run / "checkpoint-1000"))
    stored = type(filled).from_pretrained(run / "checkpoint-1000")
    assert torch.equal(logits("gpt2", filled), logits("gpt2", stored))
    assert filled.lm_head.weight is filled.transformer.wte.weight


NORMED = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (nn.Linear(2, 2), "outputs"),
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "outputs"),
        (NORMED, "batchnorm"),
        (nn.Sequential(NORMED, nn.PReLU()), "batchnorm"),  # one slope, no norm
        *((nn.Sequential(NORMED, other), MIXED) for other in (nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4))),
    ],
)
def test_batchnorm_beside_other_norms_is_a_kind_of_its_own(model: nn.Module, kind: str, tmp_path: Path) -> None:
    """Only its BatchNorm is repaired, so that it is none of the networks that were measured. A file tells as much."""
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert kind_of(model) == stored_kind(open_checkpoint(tmp_path / "a.pt")) == kind


@pytest.mark.parametrize(
    ("norm", "said"),
    [
        (nn.BatchNorm1d, "Next: a few batches"),
        (nn.LayerNorm, "Next: a pilot of 3, since a few batches tell nothing"),
        (
            lambda n: nn.Sequential(nn.BatchNorm1d(n), nn.LayerNorm(n)),
            "A few batches would not answer here. Networks with BatchNorm beside other norms",
        ),
    ],
)
def test_from_weights_alone_the_next_level_is_that_of_the_kind(norm: Callable, said: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 24), norm(24), nn.ReLU(), nn.Linear(24, 10))
    run = torch_run(tmp_path / "run", model, [f"net-{i}.pt" for i in range(1, 7)])
    (verdict,) = advise(run, ratios=(0.9,), cache=tmp_path / "cache").verdicts
    assert verdict.would_change.startswith(said)


def test_functions_score_a_hugging_face_run(tmp_path: Path) -> None:
    """The tied prediction layer stays dense at this level too: pruning it would prune the embedding."""
    run = hf_run(tmp_path / "run", partial(build, "gpt2"))
    seen: list[int] = []

    def score(model: nn.Module, batches: list) -> float:
        seen.append(int((model.transformer.wte.weight == 0).sum()))
        found = [(model(input_ids=b).logits[:, :-1].argmax(-1) == b[:, 1:]).double().mean().item() for b in batches]
        return 100 * sum(found) / len(found)

    batches = torch.arange(24).reshape(2, 2, 6)
    advice = advise(
        run, ratios=(0.5, 0.9), cache=tmp_path / "cache", probe=Functions(lambda: build("gpt2"), lambda: batches, score)
    )
    assert advice.level == "batches" and advice.probes["recalibrated_score"].between(0, 100).all()
    assert len(advice.probes) == 6 and set(seen) == {0}


def test_what_pruning_leaves_is_held_against_the_unpruned_checkpoint(tmp_path: Path) -> None:
    """The lightest asked ratio may have destroyed the network: its score is no measure of the whole."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))

    def score(model: nn.Module, batches: list) -> float:
        return 10.0 if bool((model[0].weight == 0).any()) else 90.0

    run = torch_run(tmp_path / "run", make(), [f"net-{i}.pt" for i in range(1, 9)])
    probe = Functions(make, lambda: [torch.randn(4, 16)], score)
    advice = advise(run, ratios=(0.5, 0.9), cache=tmp_path / "cache", probe=probe)
    assert [verdict.regime for verdict in advice.verdicts] == ["stop early"] * 2  # 11 % are kept
    assert set(advice.probes["ratio"]) == {0.5, 0.9} and len(advice.probes) == 16  # as asked


def test_no_batch_is_said(tmp_path: Path) -> None:
    run = torch_run(tmp_path / "run", net(), ["a1.pt", "a2.pt"])
    with pytest.raises(ValueError, match="gave no batch"):
        advise(run, cache=tmp_path / "c", probe=Functions(net, lambda: [], lambda model, batches: 0.0))


def test_costs_are_counted_from_shapes() -> None:
    assert spectral_operations([(2, 3)]) == 2 * 4 * 3 + 4 / 3 * 8
    assert spectral_operations([(2, 3, 5, 7)]) == 35 * spectral_operations([(3, 2)])
    assert affordable_permutations([(64, 64)]) == 10
    shapes = [(2048, 2048)] * 4
    once = spectral_operations(shapes)
    assert [affordable_permutations(shapes, budget=n * once) for n in (0.5, 2, 4.5, 100)] == [1, 1, 3, 10]


def test_durations() -> None:
    assert [duration(s) for s in (0.44, 42.2, 210, 7560)] == ["0.4 s", "42 s", "3.5 min", "2.1 h"]
