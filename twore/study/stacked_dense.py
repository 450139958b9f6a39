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

from twore.study.context import Context
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
    left = [trajectory for trajectory in trajectories if not dense_run_done(store, trajectory)]
    if not left:
        return {}
    try:
        initial, epochs = _trained(context, left)
    except Exception as error:  # noqa: BLE001  the border of a stack: runs that were done already have not failed
        return dict.fromkeys((trajectory.key for trajectory in left), error)
    failures: Failures = {}
    share = (time.monotonic() - started) / len(left)
    for k, trajectory in enumerate(left):
        try:
            keep_run(context, trajectory, initial[k], _of_model(epochs, k), started=time.monotonic() - share)
        except Exception as error:  # noqa: BLE001  the border of a run: the others in its stack are kept
            failures[trajectory.key] = error
    if len(failures) < len(left):  # else, as on a full disk, the next attempt needs it
        _state(store, left).unlink(missing_ok=True)
    return failures


def dense_alone(context: Context, trajectory: Trajectory) -> None:
    """Do one dense run, by itself or as a stack of its own copies, as the study's numerics say."""
    if trajectory.study.numerics.dense_stack == 1:
        dense_run(context, trajectory)
        return
    for error in dense_stack(context, [trajectory]).values():
        raise error


def _trained(context: Context, runs: Sequence[Trajectory]) -> tuple[list[dict[str, Any]], list[Epoch]]:
    """Train the runs as one stack and keep their checkpoints; scores before training, and the stack's records."""
    store, study = Store(context.out), runs[0].study
    data = [noted_data(context, trajectory) for trajectory in runs][0]
    members = [*runs, *[runs[0]] * (study.numerics.dense_stack - len(runs))]
    models = [initial_model(trajectory).to(context.device) for trajectory in members]
    state, words = _state(store, runs), f"dense {runs[0].setting} seeds={','.join(str(t.seed) for t in runs)}"
    broken: set[int] = set()
    with watched(store, state.stem, words, study.dense.epochs) as watch, ExitStack() as opened:
        curves = [opened.enter_context(context.curves(f"dense-{trajectory.key}")) for trajectory in runs]
        initial = [keep_initial(context, *each, data) for each in zip(runs, models)]

        def one(k: int, record: Epoch) -> dict[str, Any]:
            if k in broken or not math.isfinite(record.train_loss):
                return {}
            mean = None if average is None else {n: t[k] for n, t in average.module.state_dict().items()}
            try:
                scores = keep_epoch(context, runs[k], record, models[k], mean)
            except DivergedError as error:
                broken.add(k)
                return {FAILED: str(error)}
            curves[k](record, scores)
            return scores

        def after_epoch(record: Epoch) -> dict[str, Any]:
            watch(record)
            return {"each": [one(k, _record(record, k)) for k in range(len(runs))]}

        stack = Stack(models, bf16=study.numerics.precision == "bf16")
        average = make_average(stack.module, study.dense, data)
        run = Run(
            stack.module, StackedData(data, stack), study.dense, "dense", tuple(t.seed for t in members),
            study.numerics, average=average, width=stack.width,
        )  # fmt: skip
        return initial, train(run, after_epoch=after_epoch, state=state)


def _of_model(epochs: Sequence[Epoch], k: int) -> list[Epoch]:
    """One model's epochs, as it would report them alone. DivergedError where it diverged."""
    found = [_record(epoch, k) for epoch in epochs]
    for epoch in found:
        if FAILED in epoch.scores:
            raise DivergedError(epoch.scores[FAILED])
        if not math.isfinite(epoch.train_loss):
            raise diverged(epoch.epoch, epoch.train_loss)
    return found


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
