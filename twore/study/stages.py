"""The stages of a study after the dense run (twore.study.dense): checkpoint metrics, fine-tuned cells, pair metrics.

Each begins with "done? return" and ends with the one write that makes it done, so rerunning is free and a killed worker
leaves nothing half-true. A stage runs in any process: all it needs is a Context and what it computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twore.files import CorruptFileError, read_about
from twore.pruning import audit_masks, recalibrate_batchnorm, save_masks
from twore.seeds import derive_seed
from twore.study.claims import Claims
from twore.study.context import Context, check_data, data_of, provenance
from twore.study.dense import initial_model
from twore.study.pairs import pair_rows
from twore.study.probes import probe, probed
from twore.study.scoring import samples_of, score_model
from twore.study.specs import Group, Trajectory
from twore.study.stacked_dense import dense_alone
from twore.study.store import Store, set_aside
from twore.study.watching import watched
from twore.study.weight_metrics import weight_metrics
from twore.training import Epoch, Pruner, Run, train
from twore.training.state import load_weights, save_weights


def checkpoint_metrics(context: Context, trajectory: Trajectory, epoch: int) -> None:
    """Measure one checkpoint's weights, with the same permutations for every epoch."""
    store, key = Store(context.out), trajectory.checkpoint_key(epoch)
    if store.get("checkpoints", key) is not None:
        return
    started = time.monotonic()
    model, before = load_checkpoint(context, trajectory, epoch), [e for e in trajectory.epochs if e < epoch]
    previous = load_checkpoint(context, trajectory, before[-1]) if before else None
    record = weight_metrics(
        model, initial_model(trajectory).to(context.device), previous, permutations=trajectory.study.permutations,
        name=f"{trajectory.setting} seed={trajectory.seed} epoch={epoch}",
    )  # fmt: skip
    store.put("checkpoints", key, record | {"provenance": provenance(context, started)})


def fine_tuned_group(context: Context, group: Group) -> None:
    """Probe a pruned checkpoint, fine-tune and score its cells, then measure their pairs."""
    probe(context, group, load_checkpoint)
    for seed in group.cell_keys:
        _fine_tuned_cell(context, group, seed, needs_weights=needs_weights(context, group, seed))
    paired(context, group, lambda group, seed: _fine_tuned_cell(context, group, seed, needs_weights=True))


def needs_weights(context: Context, group: Group, seed: int) -> bool:
    """Whether a cell's fine-tuned weights are wanted: for pair metrics to come, or to be kept."""
    store = Store(context.out)
    wants_pairs = bool(group.pairs) and store.get("pairs", group.pairs_key) is None
    return wants_pairs or (group.trajectory.study.keep_weights and not store.weights(group.cell_keys[seed]).exists())


def paired(context: Context, group: Group, again: Callable[[Group, int], None]) -> None:
    """Measure the pairs of a group whose cells are done; then its weights go. again: as in pair_metrics."""
    store = Store(context.out)
    if group.pairs and store.get("pairs", group.pairs_key) is None:
        pair_metrics(context, group, again)
    if not group.trajectory.study.keep_weights:
        for key in group.cell_keys.values():
            store.weights(key).unlink(missing_ok=True)


def group_done(store: Store, group: Group) -> bool:
    """Whether all cells of the group, its probe and its pair metrics are there."""
    if not probed(store, group) or any(store.get("cells", key) is None for key in group.cell_keys.values()):
        return False
    return not group.pairs or store.get("pairs", group.pairs_key) is not None


def load_checkpoint(context: Context, trajectory: Trajectory, epoch: int) -> nn.Module:
    """The dense model after `epoch` epochs. A broken or missing file is computed again first."""
    store = Store(context.out)
    path = store.checkpoint(trajectory.key, epoch)
    model = trajectory.study.task.build()
    try:
        load_weights(path, model)
    except (CorruptFileError, FileNotFoundError):
        with Claims(store.claims) as claims, claims.hold(f"{trajectory.key}-again"):  # one trains, the others wait
            _restore(context, trajectory, path, model)
    return model.to(context.device)


def _restore(context: Context, trajectory: Trajectory, path: Path, model: nn.Module) -> None:
    """Load a checkpoint that was broken or missing; train again unless another process just did."""
    try:
        load_weights(path, model)
    except (CorruptFileError, FileNotFoundError) as error:
        set_aside(path, error)
        Store(context.out).drop("trajectories", trajectory.key)
        with torch.enable_grad():  # a probe found it broken
            dense_alone(context, trajectory)
        load_weights(path, model)


def started_cell(context: Context, group: Group, seed: int) -> tuple[nn.Module, Pruner]:
    """A cell before its first update: the checkpoint, pruned."""
    study = group.trajectory.study
    data = data_of(context, study)
    check_data(Store(context.out), group.trajectory.key, data)
    model = load_checkpoint(context, group.trajectory, group.epoch)
    pruner = Pruner(model, study.pruning, group.ratio, seed=group.trajectory.seed)
    if study.pruning.recalibrate:
        batches = data.epoch(study.finetune.batch_size, derive_seed("recalibrate", seed))
        recalibrate_batchnorm(model, islice(batches, study.pruning.recalibrate), data.outputs)
    return model, pruner


def finished_cell(
    context: Context, group: Group, seed: int, model: nn.Module, pruner: Pruner, train_loss: float, *, started: float,
    needs_weights: bool,
) -> None:  # fmt: skip
    """Audit and score a fine-tuned cell and keep its record. started: of time.monotonic()."""
    store, study, key = Store(context.out), group.trajectory.study, group.cell_keys[seed]
    data = data_of(context, study)
    audit = audit_masks(model, pruner.masks)
    if audit.revived:
        raise RuntimeError(
            f"{audit.revived} pruned weights are not zero after fine-tuning, in {', '.join(audit.revived_names)}"
        )
    found = score_model(model, data, study.numerics) | samples_of(model, data, study.numerics)
    record = found | {"train_loss": train_loss, "density": audit.density, "revived": audit.revived}
    if needs_weights:
        save_weights(store.weights(key), model)
    if study.keep_weights:
        save_masks(store.masks(key), pruner.masks)
    store.put("cells", key, record | {"provenance": provenance(context, started)})


def needs_cell(store: Store, group: Group, seed: int, *, needs_weights: bool) -> bool:
    """Whether a cell is still to be computed: its record, or the weights that its pairs need, are not there."""
    key = group.cell_keys[seed]
    return store.get("cells", key) is None or (needs_weights and not store.weights(key).exists())


def _fine_tuned_cell(context: Context, group: Group, seed: int, *, needs_weights: bool) -> None:
    store, study, key = Store(context.out), group.trajectory.study, group.cell_keys[seed]
    if not needs_cell(store, group, seed, needs_weights=needs_weights):
        return
    started = time.monotonic()
    model, pruner = started_cell(context, group, seed)
    words = f"cell epoch={group.epoch} ratio={group.ratio:g} seed={seed} of {group.trajectory.setting}"
    state = store.run_state(key)
    with watched(store, key, words, study.finetune.epochs) as watch, context.curves(f"cell-{key}") as draw:

        def after_epoch(record: Epoch) -> dict[str, Any]:
            watch(record)
            draw(record, {})
            return {}

        data = data_of(context, study)
        run = Run(model, data, study.finetune, "finetune", seed, study.numerics, pruner, began=clock(store, group))
        epochs = train(run, after_epoch=after_epoch, state=state)
    train_loss = epochs[-1].train_loss if epochs else math.nan
    finished_cell(
        context, group, seed, model, pruner, train_loss, started=started, needs_weights=needs_weights
    )  # fmt: skip
    state.unlink(missing_ok=True)


def clock(store: Store, group: Group) -> tuple[int, int]:
    """Epochs and updates that fine-tuning's schedule counts as done: the checkpoint's, when it continues."""
    if group.trajectory.study.finetune.clock != "continue":
        return 0, 0
    path = store.checkpoint(group.trajectory.key, group.epoch)
    return group.epoch, int(read_about(path)["update"])


def pair_metrics(context: Context, group: Group, again: Callable[[Group, int], None]) -> None:
    """Measure the pairs of a group's fine-tuned models; again(group, seed) makes the weights of a cell anew."""
    started, store, study = time.monotonic(), Store(context.out), group.trajectory.study
    data = data_of(context, study)
    models = {}
    for seed, key in group.cell_keys.items():
        models[seed] = study.task.build().to(context.device).eval()
        try:
            load_weights(store.weights(key), models[seed])
        except (CorruptFileError, FileNotFoundError) as error:
            set_aside(store.weights(key), error)
            again(group, seed)
            load_weights(store.weights(key), models[seed])
    rows = pair_rows(models, data, study)
    store.put("pairs", group.pairs_key, {"rows": rows, "provenance": provenance(context, started)})
