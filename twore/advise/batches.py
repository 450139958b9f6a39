"""Evidence from a few batches: the score of every pruned checkpoint after repair, before any fine-tuning.

Either a task (twore.tasks.Task, which may be your own) or two functions and a builder of the model (`Functions`). The
measurement is the study's own (twore.study.pruned_scores), so a study's probes.csv has the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twore.advise.cache import Cache
from twore.advise.cost import duration
from twore.advise.evidence import Evidence, Say, is_initial
from twore.advise.kinds import kind_of
from twore.advise.models import fill_model, tied_weights
from twore.advise.reading import Opened
from twore.pruning.spec import Pruning
from twore.study.identity import canonical
from twore.study.pruned_scores import Scoring, pruned_scores, scoring_of
from twore.tasks.base import Task, TaskData
from twore.training import Numerics
from twore.training.numerics import resolve

BATCHES = 4  # as a study's probe_batches


@dataclass(frozen=True)
class Functions:
    """A model of one's own in three functions, for `advise(..., probe=Functions(...))`.

    build    () -> the model that was trained (weights of any values)
    batches  () -> training batches, of any kind; a few are taken
    score    (model in eval mode, list of batches) -> a number, higher is better; percent right where that makes sense
    """

    build: Callable[[], nn.Module]
    batches: Callable[[], Iterable[Any]]
    score: Callable[[nn.Module, Sequence[Any]], float]
    count: int = BATCHES

    def __post_init__(self) -> None:
        _check_count(self.count)

    def identity(self) -> None:
        """Functions have none: their results are not kept."""
        return

    def scoring(self) -> tuple[Scoring, list[Any]]:
        """How to score, and the batches."""
        found = list(islice(self.batches(), self.count))
        if not found:
            raise ValueError("batches() gave no batch: the score of a pruned network needs at least one")

        def scores(model: nn.Module, batches: Sequence[Any]) -> dict[str, float]:
            return {"score": float(self.score(model, list(batches)))}

        return Scoring(lambda model, batch: self.score(model, [batch]), scores), found


@dataclass(frozen=True)
class TaskProbe:
    """A task (twore.tasks.Task) whose training data score pruned checkpoints.

    data: folder with the task's data, as --data. count: batches. numerics: `auto` is float32 on the device at hand.
    """

    task: Task
    data: Path | None = None
    count: int = BATCHES
    numerics: Numerics = Numerics(precision="float32")

    def __post_init__(self) -> None:
        _check_count(self.count)

    def build(self) -> nn.Module:
        """The task's model on the device."""
        return self.task.build().to(self.resolved.device)

    def identity(self) -> dict[str, Any]:
        """What scores depend on beside the checkpoint and the ratio."""
        fingerprint = self.task.known_fingerprint() or self.loaded.fingerprint
        return {
            "task": canonical(self.task), "data": fingerprint, "count": self.count,
            "numerics": canonical(self.resolved),
        }  # fmt: skip

    def scoring(self) -> tuple[Scoring, list[Any]]:
        """How to score, and the batches. ValueError for a task whose data do not say what is right."""
        if not hasattr(self.loaded, "targets"):
            raise ValueError(
                f"the data of {type(self.task).__name__} do not say what is right (no `targets`, see "
                "twore.tasks.base): add it, or pass functions of your own"
            )
        return scoring_of(self.loaded, self.resolved), list(islice(self.loaded.plain(), self.count))

    @cached_property
    def resolved(self) -> Numerics:
        return resolve(self.numerics)

    @cached_property
    def loaded(self) -> TaskData:
        return self.task.load(self.data, torch.device(self.resolved.device))


Probe = Functions | TaskProbe


def with_tied_dense(model: nn.Module, pruning: Pruning) -> Pruning:
    """The pruning with tied weights left dense, as `advise` does at every level."""
    tied = tied_weights(model)
    return replace(pruning, exclude=(*pruning.exclude, *tied)) if tied else pruning


def batches_evidence(
    evidence: Evidence, opened: Sequence[Opened], probe: Probe, pruning: Pruning, cache: Cache, *, say: Say
) -> str:
    """Add pruned_score and recalibrated_score to the evidence's probes, and what the final checkpoint scores unpruned,
    against which the verdict holds what pruning leaves; returns the kind of network, `kind_of`."""
    started = time.monotonic()
    model = probe.build()
    kind, own = kind_of(model), with_tied_dense(model, pruning)
    identity = probe.identity()
    every = [one for one in opened if not is_initial(one.found, evidence.run)]
    wanted = {one.found.position: evidence.ratios for one in every}
    wanted[every[-1].found.position] = tuple(sorted({0.0, *evidence.ratios}))
    keys = {} if identity is None else {
        (one.found.position, ratio): {
            "contents": cache.contents(one.checkpoint), "ratio": float(ratio), "pruning": canonical(own), **identity
        }
        for one in every for ratio in wanted[one.found.position]
    }  # fmt: skip
    rows = {place: cache.find("pruned scores", key) for place, key in keys.items()}
    missing = sum(map(len, wanted.values())) - sum(row is not None for row in rows.values())
    scoring, batches = probe.scoring() if missing else (None, [])
    priced = False
    for one in every:
        ratios = [ratio for ratio in wanted[one.found.position] if rows.get((one.found.position, ratio)) is None]
        if not ratios or scoring is None:
            continue
        dense = fill_model(model if one is every[0] else probe.build(), one.found)
        for ratio in ratios:
            began, place = time.monotonic(), (one.found.position, ratio)
            rows[place] = found = pruned_scores(dense, ratio, own, scoring, batches)
            if place in keys:
                cache.put("pruned scores", keys[place], found)
            if not priced:
                priced = True
                each = duration((time.monotonic() - began) * missing)
                say(f"batches: {missing} networks, {len(batches)} batches each, about {each}; nothing is trained")
    evidence.unpruned = {name: float(value) for name, value in (rows[every[-1].found.position, 0.0] or {}).items()}
    for place, row in rows.items():
        at = (evidence.probes["epoch"] == place[0]) & (evidence.probes["ratio"] == place[1])
        for name, value in sorted((row or {}).items()):
            if name not in evidence.probes:
                evidence.probes[name] = math.nan
            evidence.probes.loc[at, name] = float(value)
    evidence.costs.append(
        f"batches: {duration(time.monotonic() - started)}, {missing} networks scored, nothing trained"
    )
    return kind


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"pruned networks are scored on at least one batch: got {count}")
