"""A task of one's own in few lines: give tensors and a model, and have the rest of TaskData made.

    @dataclass(frozen=True)
    class MyTask:                                             # fields are what a study may sweep; all are identity
        score_label: ClassVar[str] = "test accuracy (%)"
        setting_fields: ClassVar[tuple[str, ...]] = ("width",)
        width: int = 64

        def known_fingerprint(self) -> None: ...
        def load(self, folder, device):
            return labelled_data((x, y), (x_test, y_test), device=device)
        def build(self):
            return MyModel(self.width)

`labelled_data` is for classifiers; `TensorData` takes a loss and a score of your own (`Learning`). Data that do not fit
in memory, or are augmented, want a TaskData written out (twore.tasks.base). Import the class from a module, also in the
script that runs the study: study.yaml and worker processes find it by its name, module:Class.
Shape letters: N examples, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twore.tasks.base import Batch

EVAL_BATCH = 256  # examples; fixed, since rounding depends on it; our choice


@dataclass(frozen=True)
class Learning:
    """What a task learns, as functions of the model and a batch (the nested tensors of some rows, as they were given).

    loss     (model, batch) -> (training loss summed over the examples or tokens of the batch, their number)
    outputs  (model, batch) -> predicted probabilities, (N, C) float32, a row an example (or token, without padding)
    scores   (model, batches of a split) -> {"score": higher is better, ...}; the model is in eval mode
    targets  batch -> the right class of each row of outputs, (N,) int64; None leaves out what needs it (probes.csv)
    """

    loss: Callable[[nn.Module, Batch], tuple[Tensor, int]]
    outputs: Callable[[nn.Module, Batch], Tensor]
    scores: Callable[[nn.Module, Iterable[Batch]], Mapping[str, Any]]
    targets: Callable[[Batch], Tensor] | None = None


def labelled_data(
    train: tuple[Any, Tensor],
    test: tuple[Any, Tensor],
    *,
    valid: tuple[Any, Tensor] | None = None,
    device: torch.device,
    logits: Callable[[nn.Module, Any], Tensor] | None = None,
) -> TensorData:
    """The TaskData of a classifier: cross-entropy, and accuracy in percent as the score.

    train, test, valid: (inputs, labels). inputs: a tensor (N, ...), or a tuple or mapping of such tensors (what a
        tokenizer returns); labels: (N,) int64 classes. valid: what choices are made on, where there is one.
    logits: (model, inputs) -> (N, C). Default: model(inputs), with a tuple's items as arguments and a mapping's as
        keywords, and `.logits` of what comes back where it has it, as Hugging Face models do.
    ValueError for labels that are not classes, and for numbers of rows that differ.
    """
    predict = logits or _call
    for name, part in {"train": train, "test": test, "valid": valid}.items():
        if part is not None and not _are_classes(part[1]):
            raise ValueError(f"{name} is (inputs, labels), labels an int64 tensor (N,) of classes: else use TensorData")

    def loss(model: nn.Module, batch: tuple[Any, Tensor]) -> tuple[Tensor, int]:
        return F.cross_entropy(predict(model, batch[0]).float(), batch[1], reduction="sum"), len(batch[1])

    def scores(model: nn.Module, batches: Iterable[tuple[Any, Tensor]]) -> dict[str, float]:
        right, nats, count = 0, 0.0, 0
        for inputs, labels in batches:
            found = predict(model, inputs).float()  # (N, C)
            right += int((found.argmax(1) == labels).sum())
            nats += F.cross_entropy(found, labels, reduction="sum").item()
            count += len(labels)
        return {"score": 100.0 * right / count, "loss": nats / count}

    learning = Learning(
        loss=loss,
        outputs=lambda model, batch: predict(model, batch[0]).float().softmax(1),
        scores=scores,
        targets=lambda batch: batch[1],
    )
    return TensorData(train, test, valid=valid, device=device, learning=learning)


def split_rows(
    rows: Batch, *, valid: float = 0.0, test: float = 0.2, seed: int = 0
) -> tuple[Batch, Batch | None, Batch]:
    """(train, valid, test): the rows of nested tensors, shuffled by `seed` and shared out.

    valid, test: fractions in [0, 1), rounded to rows; without valid its part is None.
    """
    count = row_count(rows)
    if min(valid, test) < 0 or valid + test >= 1:
        raise ValueError(f"valid and test are fractions that leave some rows to train on: got {valid} and {test}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    a, b = round(test * count), round(test * count) + round(valid * count)
    return take_rows(rows, order[b:]), take_rows(rows, order[a:b]) if b > a else None, take_rows(rows, order[:a])


class TensorData:
    """TaskData made of tensors in memory. Parts are nested tensors (tuples, mappings) whose first axis are the rows."""

    def __init__(
        self, train: Batch, test: Batch, *, valid: Batch | None = None, device: torch.device, learning: Learning
    ) -> None:
        parts = {"train": train, "valid": valid, "test": test}
        given = {name: part for name, part in parts.items() if part is not None}
        self.counts = {name: row_count(part) for name, part in given.items()}
        if not all(self.counts.values()):
            raise ValueError(f"a part has no rows: {', '.join(f'{n} {count}' for n, count in self.counts.items())}")
        self.fingerprint = _fingerprint(given)
        self.splits = tuple(name for name in ("valid", "test") if name in given)
        self._parts = {name: _map(part, lambda tensor: tensor.to(device)) for name, part in given.items()}
        self._learning = learning
        if learning.targets is not None:
            self.targets = learning.targets

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch; the last partial one counts."""
        return -(-self.counts["train"] // batch_size)

    def epoch(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """The training rows once, in the order that `seed` says."""
        order = torch.randperm(self.counts["train"], generator=torch.Generator().manual_seed(seed))
        for index in order.split(batch_size):
            yield take_rows(self._parts["train"], index)

    def plain(self) -> Iterator[Batch]:
        """The training rows once, in their order."""
        return self._in_order("train")

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """The training loss summed over the batch, and the number of its examples."""
        return self._learning.loss(model, batch)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Predicted probabilities, (N, C) float32."""
        return self._learning.outputs(model, batch)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, Any]:
        """The scores of a split."""
        return dict(self._learning.scores(model, self._in_order(split)))

    def describe(self) -> dict[str, Any]:
        """Rows of each part, and the fingerprint of all."""
        return {"source": "tensors in memory", "fingerprint": self.fingerprint, **self.counts}

    def _in_order(self, part: str) -> Iterator[Batch]:
        for index in torch.arange(self.counts[part]).split(EVAL_BATCH):
            yield take_rows(self._parts[part], index)


def row_count(rows: Batch) -> int:
    """Rows of nested tensors. ValueError where there is no tensor, or tensors disagree."""
    counts = {len(tensor) if tensor.ndim else -1 for _, tensor in _leaves(rows)}
    if len(counts) != 1 or -1 in counts:
        found = ", ".join(f"{name or 'tensor'} {tuple(tensor.shape)}" for name, tensor in _leaves(rows))
        raise ValueError(f"every tensor has a row an example: got {found or 'no tensor'}")
    return counts.pop()


def take_rows(rows: Batch, index: Tensor) -> Batch:
    """Some rows of nested tensors, nested as before (any mapping becomes a dict, a list a tuple). index: (n,) int64."""
    return _map(rows, lambda tensor: tensor[index.to(tensor.device)])


def _are_classes(labels: Any) -> bool:
    return isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1 and bool((labels >= 0).all())


def _call(model: nn.Module, inputs: Any) -> Tensor:
    if isinstance(inputs, Tensor):
        found = model(inputs)
    else:
        found = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return found.logits if hasattr(found, "logits") else found


def _map(rows: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(rows, Tensor):
        return change(rows)
    if isinstance(rows, Mapping):
        return {name: _map(value, change) for name, value in rows.items()}
    return tuple(_map(value, change) for value in rows)


def _leaves(rows: Batch, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every tensor, in a fixed order."""
    if isinstance(rows, Tensor):
        yield name, rows
    elif isinstance(rows, Mapping):
        for key in sorted(rows):
            yield from _leaves(rows[key], f"{name}.{key}".lstrip("."))
    elif isinstance(rows, (tuple, list)):
        for number, value in enumerate(rows):
            yield from _leaves(value, f"{name}.{number}".lstrip("."))
    else:
        raise ValueError(f"data are tensors, or tuples and mappings of tensors: got a {type(rows).__name__}")


def _fingerprint(parts: Mapping[str, Batch]) -> str:
    """Equal for equal parts: a hash of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in _leaves(parts):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"tensors-{digest.hexdigest()[:16]}"
