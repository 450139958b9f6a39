"""The dense run of a trajectory: the model is trained, and its checkpoints are kept and scored.

Several at once, as one stack: twore.study.stacked_dense, which shares all but the training itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from twore.files import write_record, write_tensors
from twore.seeds import derive_seed, seed_everything
from twore.study.context import Context, check_data, data_of, provenance
from twore.study.scoring import samples_of, score_model
from twore.study.specs import Trajectory
from twore.study.store import Store
from twore.study.watching import watched
from twore.tasks.base import TaskData
from twore.training import Epoch, Run, make_average, train
from twore.training.state import save_weights


def dense_run(context: Context, trajectory: Trajectory) -> None:
    """Train the dense model and keep its checkpoints. Done when the record and all asked checkpoints exist."""
    store = Store(context.out)
    if dense_run_done(store, trajectory):
        return
    started, study, key = time.monotonic(), trajectory.study, trajectory.key
    data = noted_data(context, trajectory)
    model = initial_model(trajectory).to(context.device)
    state = store.run_state(key)
    words = f"dense {trajectory.setting} seed={trajectory.seed}"
    with watched(store, key, words, study.dense.epochs) as watch, context.curves(f"dense-{key}") as draw:
        initial = keep_initial(context, trajectory, model, data)

        def after_epoch(record: Epoch) -> dict[str, Any]:
            watch(record)
            mean = None if average is None else average.module.state_dict()
            scores = keep_epoch(context, trajectory, record, model, mean)
            draw(record, scores)
            return scores

        average = make_average(model, study.dense, data)
        run = Run(model, data, study.dense, "dense", trajectory.seed, study.numerics, average=average)
        epochs = train(run, after_epoch=after_epoch, state=state)
    keep_run(context, trajectory, initial, epochs, started=started)
    state.unlink(missing_ok=True)


def initial_model(trajectory: Trajectory) -> nn.Module:
    """The model before training, on the CPU."""
    seed_everything(derive_seed("init", trajectory.seed))
    return trajectory.study.task.build()


def dense_run_done(store: Store, trajectory: Trajectory) -> bool:
    """Whether the dense run's record and all its asked checkpoints exist."""
    record = store.get("trajectories", trajectory.key)
    return record is not None and all(store.checkpoint(trajectory.key, epoch).exists() for epoch in trajectory.epochs)


def noted_data(context: Context, trajectory: Trajectory) -> TaskData:
    """The data of a dense run that is about to be trained, with a record of them. ValueError when an earlier attempt
    saw others, RuntimeError for a checkpoint that cannot be trained here."""
    if trajectory.study.origin:
        raise RuntimeError(
            "this checkpoint was trained elsewhere, and its copy here is lost: run the command that brought it in again"
        )
    store, data = Store(context.out), data_of(context, trajectory.study)
    check_data(store, trajectory.key, data)
    write_record(store.data_record(trajectory.key), data.describe())
    return data


def keep_initial(context: Context, trajectory: Trajectory, model: nn.Module, data: TaskData) -> dict[str, Any]:
    """Score the model before training; save it where its checkpoint is asked for."""
    initial = score_model(model, data, trajectory.study.numerics)
    if 0 in trajectory.epochs:
        save_weights(Store(context.out).checkpoint(trajectory.key, 0), model, {"epoch": 0, "update": 0})
    return initial


def keep_epoch(
    context: Context, trajectory: Trajectory, record: Epoch, model: nn.Module, average: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    """Save the model (and the moving average of its weights) after an epoch whose checkpoint is asked for; its scores,
    with samples of such an epoch."""
    store, key, study = Store(context.out), trajectory.key, trajectory.study
    kept = record.epoch in trajectory.epochs
    if kept:
        about = {"epoch": record.epoch, "update": record.update}
        if average is not None:  # first, so that a checkpoint that is there has its average
            write_tensors(store.average(key, record.epoch), average, about)
        save_weights(store.checkpoint(key, record.epoch), model, about)
    data = data_of(context, study)
    scores = score_model(model, data, study.numerics)
    return scores | (samples_of(model, data, study.numerics) if kept else {})


def keep_run(
    context: Context, trajectory: Trajectory, initial: dict[str, Any], epochs: Sequence[Epoch], *, started: float
) -> None:
    """Write the record that makes the run done. started: of time.monotonic()."""
    record = {"initial": initial, "epochs": [asdict(e) for e in epochs], "provenance": provenance(context, started)}
    Store(context.out).put("trajectories", trajectory.key, record)
