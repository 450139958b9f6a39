"""The training loop: dense training and fine-tuning alike, for every task.

What differs is given: the data (a task's TaskData), the Training values, the masks to hold; and whether the model is
one, or a stack of several (twore.training.stacking). The loop reports each epoch as a record; it writes no result of
its own. Random streams are derived from the seed and the epoch, so a resumed run repeats the uninterrupted one exactly.
The host does not wait for the device inside an epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from twore.files import CorruptFileError
from twore.seeds import derive_seed, seed_everything
from twore.tasks.base import TaskData
from twore.training.numerics import Numerics
from twore.training.spec import Training
from twore.training.stacking import StackedData, clip_each
from twore.training.state import Part, load_run, save_run

SAVE_EVERY = 60.0  # seconds between saved run states; our choice: a kill costs at most this and one epoch


class DivergedError(RuntimeError):
    """The training loss of an epoch was not a finite number."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of a run."""

    epoch: int  # completed epochs, 1-based
    update: int  # completed updates
    lr: float  # of the epoch's last update
    train_loss: float  # mean over the epoch's examples, as they were seen
    rate: float  # examples (or tokens) a second
    scores: dict[str, Any] = field(default_factory=dict)  # what after_epoch measured


@dataclass(frozen=True)
class StackEpoch(Epoch):
    """One finished epoch of a stack: train_loss is the mean over the models whose loss is finite, rate counts all."""

    each: tuple[float, ...] = ()  # train_loss of each model


class Holder(Protocol):
    """What holds during a run: masks. Installed on the run's optimiser, moved along, removed at the end."""

    def install(self, optimizer: Optimizer) -> None:
        """Begin to hold, now and after every update of this optimiser."""

    def advance(self, progress: float) -> None:
        """The run has done this share of its updates, in (0, 1]; a pruning schedule prunes further here."""

    def zero_gradients(self) -> None:
        """Zero the gradients of what is held at zero, before they are clipped by their norm."""

    def remove(self) -> None:
        """Stop holding."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs to hold the same."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> None:
        """Take it back, before `install`."""


class Trained(Protocol):
    """What a run trains on: the part of TaskData that the loop uses, or StackedData."""

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch."""

    def epoch(self, batch_size: int, seed: Any) -> Iterator[Any]:
        """The training set once. seed: a number, or one for each model of a stack."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The training loss summed over the batch's examples, () or (K,), and their number."""


@dataclass(frozen=True)
class Run:
    """What is trained, on what, how, and from which random stream."""

    model: nn.Module
    data: Trained
    spec: Training
    role: str  # names the random stream: "dense" or "finetune"
    seed: int | tuple[int, ...]  # numbers it; a stack whose models have streams of their own gives one for each
    numerics: Numerics
    holder: Holder | None = None
    average: AveragedModel | None = None  # of make_average: updated after every update, kept in the run's state
    began: tuple[int, int] = (0, 0)  # epochs and updates that the schedule counts as done before
    width: int | None = None  # models of a stack, whose losses are (K,); None: one model


def train(
    run: Run,
    *,
    after_epoch: Callable[[Epoch], dict[str, Any]] | None = None,
    state: Path | None = None,
) -> list[Epoch]:
    """Train run.model in place for run.spec.epochs epochs and return their records.

    after_epoch sees each record as its epoch is done; what it returns is kept in the record as scores. state: a file in
    which the run is kept about once a minute and from which it goes on, exactly; the caller removes it. DivergedError
    when an epoch's mean loss is not finite; of a stack, when no model's is: whoever stacks looks at each.
    """
    optimizer = make_optimizer(run.model, run.spec)
    records = _resume(state, run, optimizer)
    if run.holder is not None:
        run.holder.install(optimizer)
    saved_at = time.monotonic()
    try:
        while len(records) < run.spec.epochs:
            record = _train_epoch(run, optimizer, done=len(records), update=records[-1].update if records else 0)
            records.append(replace(record, scores=after_epoch(record)) if after_epoch else record)
            if state is not None and time.monotonic() - saved_at > SAVE_EVERY and len(records) < run.spec.epochs:
                save_run(state, _parts(run), optimizer, {"epochs": [asdict(record) for record in records]})
                saved_at = time.monotonic()
    finally:
        if run.holder is not None:
            run.holder.remove()
    return records


def diverged(epoch: int, mean: float) -> DivergedError:
    """The error for a training loss that is not finite."""
    return DivergedError(f"the training loss of epoch {epoch} is {mean}: try a lower lr, or clip")


def make_optimizer(model: nn.Module, spec: Training) -> Optimizer:
    """The optimiser of a run, with fresh state, over all trainable parameters (decay on all of them, as the report)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    fused = bool(parameters) and parameters[0].device.type in ("cpu", "cuda")
    if spec.optimizer == "sgd":
        return SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=fused)
    cls = Adam if spec.optimizer == "adam" else AdamW
    return cls(parameters, lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay, fused=fused)


def make_average(model: nn.Module, spec: Training, data: TaskData) -> AveragedModel | None:
    """A moving average of the weights with horizon spec.ema epochs; None when it is 0.

    Its BatchNorm statistics are the model's own: re-estimate them (recalibrate_batchnorm) before it is used.
    """
    if spec.ema == 0:
        return None
    updates = math.ceil(spec.batches_of(data.updates(spec.batch_size)) / spec.accumulate)
    decay = max(0.0, 1.0 - 1.0 / (spec.ema * updates))
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _parts(run: Run) -> dict[str, Part]:
    parts: dict[str, Part | None] = {"model": run.model, "average": run.average, "holder": run.holder}
    return {role: part for role, part in parts.items() if part is not None}


def _resume(state: Path | None, run: Run, optimizer: Optimizer) -> list[Epoch]:
    if state is None or not state.exists():
        return []
    try:
        return [_epoch(record) for record in load_run(state, _parts(run), optimizer)["epochs"]]
    except CorruptFileError:
        state.unlink()  # only a shortcut: without it the run starts over
        return []


def _epoch(record: dict[str, Any]) -> Epoch:
    return StackEpoch(**record | {"each": tuple(record["each"])}) if "each" in record else Epoch(**record)


def _train_epoch(run: Run, optimizer: Optimizer, *, done: int, update: int) -> Epoch:
    """One pass over the data, after `done` epochs and `update` updates."""
    model, spec = run.model, run.spec
    parameters = [p for p in model.parameters() if p.requires_grad]
    _seed_layers(run, done)
    model.train()
    start, first = time.perf_counter(), update
    before, updates_before = run.began
    lr = spec.lr_at(before + done, updates_before + update)
    used = spec.batches_of(run.data.updates(spec.batch_size))
    expected = math.ceil(used / spec.accumulate)
    loss_sum, count = torch.zeros(() if run.width is None else run.width, device=parameters[0].device), 0
    batches = run.data.epoch(spec.batch_size, _derived(run, "order", done))
    batches = batches if spec.share == 1 else islice(batches, used)
    for group in _grouped(batches, spec.accumulate):
        lr = spec.lr_at(before + done, updates_before + update)
        for options in optimizer.param_groups:
            options["lr"] = lr
        optimizer.zero_grad()
        size = 0
        for batch in group:
            with run.numerics.autocast():
                loss, examples = run.data.loss(model, batch)  # a sum over examples, and their number
            loss.sum().backward()  # of a stack: no weight is in two models' losses
            loss_sum += loss.detach()
            size += examples
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], size)  # sum and count, divide once
        if spec.clip is not None:
            if run.holder is not None:
                run.holder.zero_gradients()  # the bound is on the norm of what is trained
            (nn.utils.clip_grad_norm_ if run.width is None else clip_each)(parameters, spec.clip)
        optimizer.step()
        if run.average is not None:
            run.average.update_parameters(model)
        update, count = update + 1, count + size
        if run.holder is not None:
            run.holder.advance((done + min(1.0, (update - first) / expected)) / spec.epochs)
    if count == 0:
        raise ValueError("the task gave no batches for an epoch: its training set is empty")
    means = [value / count for value in loss_sum.view(-1).tolist()]  # the epoch's only wait for the device
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        raise diverged(done + 1, means[0])
    rate = count * len(means) / (time.perf_counter() - start)
    if run.width is None:
        return Epoch(done + 1, update, lr, means[0], rate)
    return StackEpoch(done + 1, update, lr, math.fsum(finite) / len(finite), rate, each=tuple(means))


def _seed_layers(run: Run, done: int) -> None:
    """What layers draw, which is dropout: from torch's global generator, or each model of a stack from its own."""
    seed = _derived(run, "layers", done)
    if isinstance(seed, tuple):
        if not isinstance(run.data, StackedData):
            raise ValueError("several seeds are for a stack: give the run StackedData")
        run.data.seed_noise(seed)
        seed = seed[0]
    seed_everything(seed)


def _derived(run: Run, stream: str, done: int) -> int | tuple[int, ...]:
    """The seed of an epoch's stream, or one for each model."""
    if isinstance(run.seed, tuple):
        return tuple(derive_seed(run.role, seed, stream, done) for seed in run.seed)
    return derive_seed(run.role, run.seed, stream, done)


def _grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group
