"""The stage of stacked cells: groups whose cells of one fine-tune seed train as one model, seed after seed.

Everything around the training is as for single cells (twore.study.stages), cell by cell, and each cell writes its own
record. A stack is always `numerics.stack` models wide: places that no cell needs are filled with the first cell again,
since rounding may depend on the width but not on what else is in a stack. What goes wrong with one cell is that cell's
group's failure alone; what goes wrong with the training of a stack is the failure of the groups with a cell in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from twore.study.context import Context, data_of
from twore.study.identity import key_of
from twore.study.probes import probe
from twore.study.specs import Group
from twore.study.stages import (
    clock,
    finished_cell,
    load_checkpoint,
    needs_cell,
    needs_weights,
    paired,
    started_cell,
)
from twore.study.store import Store
from twore.study.watching import watched
from twore.training import (
    Epoch,
    Pruner,
    Run,
    Stack,
    StackedData,
    StackedPruner,
    StackEpoch,
    diverged,
    train,
)

Failures = dict[str, Exception]  # by the key of a group


def fine_tuned_stack(context: Context, groups: Sequence[Group]) -> Failures:
    """Do all that is left of these groups (at most numerics.stack of them, see `stackable`); returns what failed."""
    failures: Failures = {}
    _each(groups, failures, lambda group: probe(context, group, load_checkpoint))
    for seed in groups[0].cell_keys:
        _seed(context, groups, seed, failures)

    def again(group: Group, seed: int) -> None:
        own: Failures = {}
        _seed(context, [group], seed, own)
        for error in own.values():
            raise error

    _each(groups, failures, lambda group: paired(context, group, again))
    return failures


def _each(groups: Sequence[Group], failures: Failures, step: Callable[[Group], object]) -> None:
    """Take a step with every group that has not failed."""
    for group in groups:
        if group.pairs_key not in failures:
            try:
                step(group)
            except Exception as error:  # noqa: BLE001  the border of a group: the others in its stack go on
                failures[group.pairs_key] = error


def _seed(context: Context, groups: Sequence[Group], seed: int, failures: Failures) -> None:
    """Fine-tune, score and keep the cells of one seed that are left."""
    store, started = Store(context.out), time.monotonic()
    cells: dict[str, tuple[nn.Module, Pruner]] = {}

    def start(group: Group) -> None:
        if needs_cell(store, group, seed, needs_weights=needs_weights(context, group, seed)):
            cells[group.pairs_key] = started_cell(context, group, seed)

    _each(groups, failures, start)
    members = [group for group in groups if group.pairs_key in cells]
    if not members:
        return
    try:
        epochs = _trained(context, members, seed, [cells[group.pairs_key] for group in members])
    except Exception as error:  # noqa: BLE001  the border of a stack: groups without a cell in it go on
        failures |= dict.fromkeys(cells, error)
        return
    share = (time.monotonic() - started) / len(members)
    places = {group.pairs_key: k for k, group in enumerate(members)}

    def finish(group: Group) -> None:
        k = places[group.pairs_key]
        losses = [epoch.each[k] for epoch in epochs if isinstance(epoch, StackEpoch)]
        for number, loss in enumerate(losses, 1):
            if not math.isfinite(loss):
                raise diverged(number, loss)
        model, pruner = cells[group.pairs_key]
        finished_cell(
            context, group, seed, model, pruner, losses[-1] if losses else math.nan,
            started=time.monotonic() - share, needs_weights=needs_weights(context, group, seed),
        )  # fmt: skip

    _each(members, failures, finish)
    if not all(group.pairs_key in failures for group in members):  # else, as on a full disk, the next attempt needs it
        for path in _states(store, [group.cell_keys[seed] for group in members]):
            path.unlink(missing_ok=True)


def _trained(
    context: Context, groups: Sequence[Group], seed: int, cells: Sequence[tuple[nn.Module, Pruner]]
) -> list[Epoch]:
    """Train the cells as one stack, in place; the records of its epochs."""
    store, study = Store(context.out), groups[0].trajectory.study
    fillers = [started_cell(context, groups[0], seed) for _ in range(study.numerics.stack - len(groups))]
    models, pruners = zip(*cells, *fillers)
    stack = Stack(models, bf16=study.numerics.precision == "bf16")
    keys = [group.cell_keys[seed] for group in groups]
    key = f"{keys[0]}-{key_of('stack', keys)}"
    words = f"stack of {len(groups)} cells, seed={seed} of {groups[0].trajectory.setting}"
    with watched(store, key, words, study.finetune.epochs) as watch, ExitStack() as opened:
        curves = [opened.enter_context(context.curves(f"cell-{cell}")) for cell in keys]

        def after_epoch(record: Epoch) -> dict[str, Any]:
            watch(record)
            for draw, loss in zip(curves, getattr(record, "each", ())):
                draw(replace(record, train_loss=loss), {})
            return {}

        data = StackedData(data_of(context, study), stack)
        run = Run(
            stack.module, data, study.finetune, "finetune", seed, study.numerics, StackedPruner(stack, pruners),
            began=clock(store, groups[0]), width=stack.width,
        )  # fmt: skip
        return train(run, after_epoch=after_epoch, state=store.run_state(key))


def _states(store: Store, cells: Sequence[str]) -> list[Path]:
    """The states of a stack of these cells, and of earlier stacks that began with one of them."""
    return [path for cell in cells for path in store.run_state(cell).parent.glob(f"{cell}-*.safetensors")]
