"""A new checkpoint costs only itself; an altered one is noticed; a damaged record is measured again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from labelled import LabelledTask
from runs import net, torch_run
from toy import CPU

import twore.advise.batches as batches
import twore.advise.weights as weights
from twore.advise import TaskProbe, advise

RATIOS = (0.5, 0.9)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was measured, one name a call: spectra of a checkpoint, distances, pruned scores."""
    calls: list[str] = []

    def counted(module: object, name: str) -> None:
        real = getattr(module, name)

        def wrapper(*args: object, **options: object) -> object:
            calls.append(name)
            return real(*args, **options)

        monkeypatch.setattr(module, name, wrapper)

    counted(weights, "streamed_spectral_metrics")
    counted(weights, "removed_squares")
    counted(weights, "differing_bits")
    counted(batches, "pruned_scores")
    return calls


def ask(run: Path, cache: Path) -> str:
    return advise(run, ratios=RATIOS, cache=cache).to_json()


def test_only_the_new_checkpoint_is_measured(tmp_path: Path, measured: list[str]) -> None:
    model = net()
    run = torch_run(tmp_path / "run", model, ["net-1.pt", "net-2.pt"])
    first = ask(run, tmp_path / "cache")
    assert measured.count("streamed_spectral_metrics") == 2
    measured.clear()
    assert ask(run, tmp_path / "cache") == first and measured == []
    torch_run(run, model, ["net-3.pt"])
    ask(run, tmp_path / "cache")
    layers = 2
    assert measured.count("streamed_spectral_metrics") == 1
    assert measured.count("removed_squares") == measured.count("differing_bits") == layers * len(RATIOS)


def test_a_moved_or_touched_file_is_known_by_its_contents(tmp_path: Path, measured: list[str]) -> None:
    run = torch_run(tmp_path / "run", net(), ["net-1.pt", "net-2.pt"])
    ask(run, tmp_path / "cache")
    measured.clear()
    os.utime(run / "net-1.pt")
    run.rename(tmp_path / "moved")
    ask(tmp_path / "moved", tmp_path / "cache")
    assert measured == []


def test_an_altered_file_is_noticed_even_with_its_old_times(tmp_path: Path, measured: list[str]) -> None:
    run = torch_run(tmp_path / "run", net(), ["net-1.pt", "net-2.pt"])
    before = ask(run, tmp_path / "cache")
    path = run / "net-2.pt"
    status, size = path.stat(), path.stat().st_size
    state = torch.load(path, weights_only=True)
    state["0.weight"][0] *= 3
    torch.save(state, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == size
    measured.clear()
    assert ask(run, tmp_path / "cache") != before
    assert measured.count("streamed_spectral_metrics") == 1


def test_a_damaged_record_is_measured_again(tmp_path: Path, measured: list[str]) -> None:
    run = torch_run(tmp_path / "run", net(), ["net-1.pt", "net-2.pt"])
    before = ask(run, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.json"):
        path.write_text(path.read_text()[:20])
    assert ask(run, tmp_path / "cache") == before


def test_pruned_scores_are_kept_for_a_task(tmp_path: Path, measured: list[str]) -> None:
    run = torch_run(tmp_path / "run", LabelledTask().build(), ["net-1.pt", "net-2.pt"])
    options = {"ratios": RATIOS, "cache": tmp_path / "cache"}
    first = advise(run, probe=TaskProbe(LabelledTask(), numerics=CPU), **options)
    assert measured.count("pruned_scores") == 5  # two checkpoints at two ratios, and the last one unpruned
    again = advise(run, probe=TaskProbe(LabelledTask(), numerics=CPU), **options)
    assert measured.count("pruned_scores") == 5 and again.to_json() == first.to_json()
    advise(
        run,
        probe=TaskProbe(
            LabelledTask(),
            numerics=CPU,
            count=1,
        ),
        **options,
    )  # other batches, other scores
    assert measured.count("pruned_scores") == 10


def test_the_cache_lies_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = torch_run(tmp_path / "run", net(), ["net-1.pt", "net-2.pt"])
    monkeypatch.delenv("TWORE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    advise(run, ratios=RATIOS)
    assert list((tmp_path / "xdg" / "twore" / "advise").rglob("*.json"))
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "own"))
    advise(run, ratios=RATIOS)
    assert list((tmp_path / "own" / "advise").rglob("*.json"))
