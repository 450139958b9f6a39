"""The stage of stacked dense runs: runs of one setting that differ in their seed train as one model.

Each has its own initialisation, data order, augmentation, noise and statistics, as alone, and everything around the
training is as for single ones (twore.study.dense): checkpoints, scores, records. A stack is always
`numerics.dense_stack` models wide: places that no run needs are filled with the first one again, since rounding may
depend on the width but not on what else is in a stack. A run that diverges fails alone; the others go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twore.files import CorruptFileError, read_tensors
from twore.study.context import Context, data_of
from twore.study.dense import (
    dense_run,
    dense_run_done,
    initial_model,
    keep_epoch,
    keep_initial,
    keep_run,
    noted_data,
)
from twore.study.identity import key_of
from twore.study.specs import Trajectory
from twore.study.store import Store
from twore.study.watching import watched
from twore.training import DivergedError, Epoch, Run, Stack, StackedData, StackEpoch, diverged, make_average, train

Failures = dict[str, Exception]  # by the key of a trajectory
FAILED = "failed"  # in the scores of an epoch: why a model has none


def dense_stack(context: Context, trajectories: Sequence[Trajectory]) -> Failures:
    """Do what is left of these dense runs (at most numerics.dense_stack of one setting); returns what failed."""
    store, started = Store(context.out), time.monotonic()
    failures: Failures = {}
    left: list[Trajectory] = []
    for trajectory in trajectories:
        try:
            if not dense_run_done(store, trajectory):
                noted_data(context, trajectory)
                left.append(trajectory)
        except Exception as error:  # noqa: BLE001  the border of a run: the others in its stack are trained
            failures[trajectory.key] = error
    if not left:
        return failures
    broken: dict[int, DivergedError] = {}
    try:
        initial, epochs = _trained(context, left, broken)
    except Exception as error:  # noqa: BLE001  the border of a stack: runs that were done already have not failed
        return failures | {trajectory.key: broken.get(k, error) for k, trajectory in enumerate(left)}
    share = (time.monotonic() - started) / len(left)
    for k, trajectory in reversed(list(enumerate(left))):  # the first, whose key names the state, is done last
        try:
            keep_run(context, trajectory, initial[k], _of_model(epochs, k), started=time.monotonic() - share)
        except Exception as error:  # noqa: BLE001  the border of a run: the others in its stack are kept
            failures[trajectory.key] = error
    if any(trajectory.key not in failures for trajectory in left):  # else, as on a full disk, the next attempt needs it
        for path in _states(store, left):
            path.unlink(missing_ok=True)
    return failures


def dense_alone(context: Context, trajectory: Trajectory) -> None:
    """Do one dense run, by itself or as a stack of its own copies, as the study's numerics say."""
    if trajectory.study.numerics.dense_stack == 1:
        dense_run(context, trajectory)
        return
    for error in dense_stack(context, [trajectory]).values():
        raise error


def _trained(
    context: Context, runs: Sequence[Trajectory], broken: dict[int, DivergedError]
) -> tuple[list[dict[str, Any]], list[Epoch]]:
    """Train the runs as one stack and keep their checkpoints; scores before training, and the stack's records.

    broken: takes what went wrong with which of the runs; such a run keeps nothing more, as if it had stopped.
    DivergedError as soon as none is sound.
    """
    store, study = Store(context.out), runs[0].study
    data = data_of(context, study)
    members = [*runs, *[runs[0]] * (study.numerics.dense_stack - len(runs))]
    models = [initial_model(trajectory).to(context.device) for trajectory in members]
    state, words = _state(store, runs), f"dense {runs[0].setting} seeds={','.join(str(t.seed) for t in runs)}"
    for before in _saved(state):
        _note(before, runs, broken)
    with watched(store, state.stem, words, study.dense.epochs) as watch, ExitStack() as opened:
        curves = [opened.enter_context(context.curves(f"dense-{trajectory.key}")) for trajectory in runs]
        initial = [keep_initial(context, *each, data) for each in zip(runs, models)]

        def one(k: int, record: Epoch) -> dict[str, Any]:
            if k in broken:
                return {}
            mean = None if average is None else {n: t[k] for n, t in average.module.state_dict().items()}
            try:
                scores = keep_epoch(context, runs[k], record, models[k], mean)
            except DivergedError as error:
                broken[k] = error
                return {FAILED: str(error)}
            curves[k](record, scores)
            return scores

        def after_epoch(record: Epoch) -> dict[str, Any]:
            watch(record)
            _note(record, runs, broken)
            each = [one(k, _record(record, k)) for k in range(len(runs))]
            if len(broken) == len(runs):
                raise next(iter(broken.values()))
            return {"each": each}

        stack = Stack(models, bf16=study.numerics.precision == "bf16")
        average = make_average(stack.module, study.dense, data)
        run = Run(
            stack.module, StackedData(data, stack), study.dense, "dense", tuple(t.seed for t in members),
            study.numerics, average=average, width=stack.width,
        )  # fmt: skip
        return initial, train(run, after_epoch=after_epoch, state=state)


def _note(record: Epoch, runs: Sequence[Trajectory], broken: dict[int, DivergedError]) -> None:
    """Take down what went wrong in an epoch, each run's first trouble."""
    for k in range(len(runs)):
        error = _trouble(_record(record, k))
        if error is not None:
            broken.setdefault(k, error)


def _of_model(epochs: Sequence[Epoch], k: int) -> list[Epoch]:
    """One model's epochs, as it would report them alone. DivergedError where it diverged."""
    found = [_record(epoch, k) for epoch in epochs]
    for epoch in found:
        error = _trouble(epoch)
        if error is not None:
            raise error
    return found


def _trouble(epoch: Epoch) -> DivergedError | None:
    """What went wrong with one model in an epoch."""
    if FAILED in epoch.scores:
        return DivergedError(epoch.scores[FAILED])
    return None if math.isfinite(epoch.train_loss) else diverged(epoch.epoch, epoch.train_loss)


def _record(record: Epoch, k: int) -> Epoch:
    """A stack's epoch as that of model k: its own loss and scores, and the share of the examples that it saw."""
    if not isinstance(record, StackEpoch):
        raise TypeError(f"a stack reports its models' losses: got a record of one model, {record}")
    scores = record.scores["each"][k] if record.scores else {}
    return Epoch(record.epoch, record.update, record.lr, record.each[k], record.rate / len(record.each), scores)


def _state(store: Store, runs: Sequence[Trajectory]) -> Path:
    """Where a stack of these runs keeps its state."""
    keys = [trajectory.key for trajectory in runs]
    return store.run_state(f"{keys[0]}-{key_of('dense stack', keys)}")


def _states(store: Store, runs: Sequence[Trajectory]) -> list[Path]:
    """The states of stacks that began with one of these runs."""
    return [path for run in runs for path in store.run_state(run.key).parent.glob(f"{run.key}-*.safetensors")]


def _saved(state: Path) -> list[StackEpoch]:
    """The epochs that a saved state has behind it."""
    try:
        return [StackEpoch(**epoch) for epoch in read_tensors(state)[1]["epochs"]]
    except (FileNotFoundError, CorruptFileError):
        return []
