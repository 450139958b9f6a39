"""Evidence from a pilot: a few pruned checkpoints of each ratio, fine-tuned by the ordinary study machinery.

The user's checkpoints are brought into a store of their own (in the cache, or `Pilot.out`): each is a dense run of one
checkpoint whose identity is its contents (`Study.origin`), so that groups run, resume, are claimed and survive a kill
as in any study, and another checkpoint or ratio costs only its own cells.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from twore.advise.batches import TaskProbe, with_tied_dense
from twore.advise.cache import Cache
from twore.advise.cost import duration
from twore.advise.evidence import Evidence, Say, is_initial
from twore.advise.levels import DEFAULT_K, cells_of, shortlist
from twore.advise.models import fill_model
from twore.advise.reading import Opened
from twore.provenance import code_version
from twore.pruning.spec import Pruning
from twore.study.context import Context, provenance
from twore.study.create import TRIAL_BATCHES, trial_seconds
from twore.study.identity import key_of
from twore.study.run import run_study
from twore.study.specs import Study, Trajectory
from twore.study.stages import group_done
from twore.study.store import Store
from twore.tasks.base import TaskData
from twore.training import Training
from twore.training.state import save_weights

PLACE = 1  # the epoch that a brought-in checkpoint has in its store: only its contents matter


@dataclass(frozen=True)
class Pilot:
    """How to fine-tune. The scores are those of one fine-tune seed.

    finetune: as a study's; k: checkpoints a ratio, of which one is the last; out: folder of the fine-tuned cells,
    default a folder of the cache; workers: processes on this machine; executor: "process" or "serial".
    """

    finetune: Training
    k: int = DEFAULT_K
    out: Path | None = None
    workers: int = 1
    executor: str = "process"

    def __post_init__(self) -> None:
        cells_of(self.k)
        if self.finetune.clock != "restart":
            raise ValueError("finetune.clock is restart for a pilot: the schedule of your own run is not known here")
        if self.finetune.epochs < 1:
            raise ValueError(f"a pilot fine-tunes for an epoch at least: got finetune.epochs {self.finetune.epochs}")


def pilot_evidence(
    evidence: Evidence, opened: Sequence[Opened], probe: TaskProbe, pilot: Pilot, pruning: Pruning, cache: Cache, *,
    say: Say,
) -> None:  # fmt: skip
    """Add fine-tuned cells to evidence that has recalibrated scores. Resumes what was begun before.

    ValueError when every fine-tuning failed; cells that failed while others did not are named in the notes.
    """
    started = time.monotonic()
    wanted = shortlist(evidence.setting(), pilot.k)  # ratio -> positions
    every = {one.found.position: one for one in opened if not is_initial(one.found, evidence.run)}
    contents = {position: cache.contents(every[position].checkpoint)[:20] for at in wanted.values() for position in at}
    study = _study(probe, pilot, pruning, wanted, contents)
    own = [key_of("pilot", replace(study, settings=({},), ratios=(0.5,)))[:16]]
    out = pilot.out or cache.root.joinpath("pilots", *own)
    store, position_of = Store(out), {content: position for position, content in contents.items()}
    todo = [group for t in study.trajectories for group in t.groups() if not group_done(store, group)]
    cells = sum(len(at) for at in wanted.values())
    say(_price(study, probe.loaded, pilot, cells, len(todo), out))
    context = Context(out, probe.data, study.numerics.device, code_version())
    for trajectory in study.trajectories:
        _bring_in(context, trajectory, every[position_of[trajectory.study.origin]], probe)
    results = run_study(study, out, workers=pilot.workers, executor=pilot.executor, data=probe.data)
    found = _cells(results.cells, wanted, contents)
    if found.empty:
        reason = results.failures["reason"].iloc[0].splitlines()[0] if len(results.failures) else "no cell came back"
        raise ValueError(f"no fine-tuning of the pilot worked: {reason}")
    evidence.cells = found
    if len(results.failures):
        reason = results.failures["reason"].iloc[0].splitlines()[0]
        evidence.notes.append(f"{len(results.failures)} fine-tunings failed; the same command tries again: {reason}")
    evidence.costs.append(
        f"pilot: {duration(time.monotonic() - started)}, {len(todo)} of {cells} cells fine-tuned now; they are in {out}"
    )


def _study(
    probe: TaskProbe, pilot: Pilot, pruning: Pruning, wanted: dict[float, list[float]], contents: dict[float, str]
) -> Study:
    """A setting a shortlisted checkpoint, each with the ratios that want it."""
    ratios: dict[str, set[float]] = {}
    for ratio, positions in wanted.items():
        for position in positions:
            ratios.setdefault(contents[position], set()).add(ratio)
    return Study(
        task=probe.task,
        name="pilot",
        dense=Training(epochs=PLACE),
        finetune=pilot.finetune,
        pruning=with_tied_dense(probe.build(), pruning),
        numerics=probe.resolved,
        checkpoints=(PLACE,),
        ratios=tuple(sorted(wanted)),
        finetune_seeds=(0,),
        settings=tuple({"origin": content, "ratios": tuple(sorted(own))} for content, own in ratios.items()),
        permutations=1,
        probe_batches=0,
        data_fingerprint=probe.loaded.fingerprint,
    )


def _bring_in(context: Context, trajectory: Trajectory, one: Opened, probe: TaskProbe) -> None:
    """Write one checkpoint as the dense run of a trajectory; the record that makes it done comes last."""
    store, key, started = Store(context.out), trajectory.key, time.monotonic()
    if store.checkpoint(key, PLACE).exists() and store.get("trajectories", key) is not None:
        return
    model = fill_model(probe.build(), one.found)
    save_weights(store.checkpoint(key, PLACE), model, {"epoch": PLACE, "update": one.found.step or 0})
    made = provenance(context, started) | {"source": str(one.found.path)}
    store.put("checkpoints", trajectory.checkpoint_key(PLACE), {"provenance": made})
    store.put("trajectories", key, {"initial": {}, "epochs": [], "provenance": made})


def _cells(cells: pd.DataFrame, wanted: dict[float, list[float]], contents: dict[float, str]) -> pd.DataFrame:
    """Results by position: epoch, ratio, finetune_seed, valid_score, score."""
    rows = []
    for ratio, positions in wanted.items():
        for position in positions:
            own = cells[(cells["origin"] == contents[position]) & (cells["ratio"] == ratio)]
            rows.append(own.assign(epoch=position))
    found = pd.concat(rows, ignore_index=True)
    return found[["epoch", "ratio", "finetune_seed", "valid_score", "score"]]


def _price(study: Study, data: TaskData, pilot: Pilot, cells: int, todo: int, out: Path) -> str:
    """What fine-tuning will cost, by the time of a few updates."""
    spec = study.finetune
    words = f"pilot: {cells} cells, {pilot.k} checkpoints a ratio or fewer, {spec.epochs} epochs each"
    if not todo:
        return f"{words}; all are in {out}"
    updates = spec.batches_of(data.updates(spec.batch_size)) * spec.epochs
    seconds = trial_seconds(study, data, study.numerics) / min(TRIAL_BATCHES, data.updates(spec.batch_size)) * updates
    return f"{words}, {todo} to fine-tune: about {duration(seconds * todo / pilot.workers)}, without scoring; in {out}"
