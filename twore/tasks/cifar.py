"""The CV task: PreResNet on CIFAR-10 or CIFAR-100, or on scikit-learn's digits (embedded, no download).

The report: section 6.1. Score: test accuracy in percent. Prunable: convolutions only (the study says so).
Shape letters: B batch, C channels, H and W image height and width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twore.data.augment import STATISTICS, ImageBatches
from twore.data.images import ImageSet, known_fingerprint, load_images, subsample
from twore.models import PreResNet
from twore.models.preresnet import VARIANTS

SHIFTS = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))  # rows and columns into the image padded by one pixel: itself first
EVAL_BATCH = 500  # images; fixed, since rounding depends on it
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}
CHANNELS = {"digits": 1, "cifar10": 3, "cifar100": 3}
SIDE = {"digits": 8, "cifar10": 32, "cifar100": 32}  # pixels
IMAGES = {"digits": (1_297, 500), "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000)}  # train, test; for plans

# Channels. The gradient of narrower 1x1 convolutions with stride, channels last, writes outside its memory on
# processors with AVX2 and no more: "double free or corruption", seen with torch 2.15 for 4 and 6; 7 to 12 are fine.
NARROWEST = 8


@dataclass(frozen=True)
class CifarTask:
    """Image classification with a PreResNet."""

    kind: ClassVar[str] = "cifar"
    score_label: ClassVar[str] = "test accuracy (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ("dataset", "depth", "width", "data_percent")

    dataset: str = "cifar10"
    """cifar10, cifar100, or digits (1,797 real 8x8 images that come with scikit-learn)."""
    depth: int = 20
    """PreResNet depth, 6n+2."""
    width: int = 16
    """Channels of the first stage; 16 as published."""
    variant: str = "standard"
    """standard, or rethinking (what the code cited by the report builds)."""
    data_percent: float = 100.0
    """Share of the training images (after the hold-out) that is used, in percent: stratified and nested."""
    holdout: float = 0.0
    """Fraction of the training images held out for validation, in [0, 1)."""
    subset_seed: int = 0
    """Seed of the subsample and of the hold-out."""
    crop_padding: int = 4
    """Pixels of padding for the random crop; 0 means no crop."""
    flip: bool = True
    """Random horizontal flips."""
    shifts: bool = False
    """Evaluate on each image and its four one-pixel shifts: a finer score for small test sets."""

    def __post_init__(self) -> None:
        if self.dataset not in CLASSES:
            raise ValueError(f"dataset is one of {', '.join(CLASSES)}: got {self.dataset!r}")
        if not 0 < self.data_percent <= 100:
            raise ValueError(f"data_percent is in (0, 100]: got {self.data_percent}")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is a fraction in [0, 1): got {self.holdout}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(VARIANTS)}: got {self.variant!r}")
        if self.width < NARROWEST:
            raise ValueError(f"width is at least {NARROWEST} channels (torch breaks below): got {self.width}")
        if self.subset_seed < 0:
            raise ValueError(f"subset_seed is 0 or more: got {self.subset_seed}")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding is 0 or more pixels: got {self.crop_padding}")
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"depth is 6n+2 with n >= 1 (8, 14, 20, ...): got {self.depth}")

    def known_fingerprint(self) -> str | None:
        """The fingerprint of the standard data set."""
        return known_fingerprint(self.dataset)

    def load(self, folder: Path | None, device: torch.device) -> ImageData:
        """Images in memory on `device`."""
        return ImageData(self, _images(self.dataset, folder), device)

    def build(self) -> nn.Module:
        """A freshly initialised PreResNet."""
        model = PreResNet(
            self.depth, CLASSES[self.dataset], CHANNELS[self.dataset], variant=self.variant, width=self.width
        )
        return model.to(memory_format=torch.channels_last)  # the layout convolutions are fastest in

    def example_inputs(self) -> Tensor:
        """An image in the shape that the model takes, (1, C, H, W), black."""
        return torch.zeros(1, CHANNELS[self.dataset], SIDE[self.dataset], SIDE[self.dataset])

    def example_counts(self) -> dict[str, int]:
        """Images of each part as `load` makes them, to within a few a class, but known without the data."""
        train, test = IMAGES[self.dataset]
        valid = round(self.holdout * train)
        views = len(SHIFTS) if self.shifts else 1
        counts = {"train": round(self.data_percent / 100 * (train - valid)), "test": views * test}
        return counts | ({"valid": views * valid} if valid else {})


class ImageData:
    """The task's images on one device, as TaskData."""

    def __init__(self, task: CifarTask, images: ImageSet, device: torch.device) -> None:
        split = subsample(images.train_labels, percent=task.data_percent, holdout=task.holdout, seed=task.subset_seed)
        mean, std = STATISTICS[task.dataset]

        def batches(x: np.ndarray, y: np.ndarray, *, train: bool) -> ImageBatches:
            pad, flip = (task.crop_padding, task.flip) if train else (0, False)
            return ImageBatches(x, y, pad=pad, flip=flip, mean=mean, std=std, device=device)

        def evaluation(x: np.ndarray, y: np.ndarray) -> ImageBatches:
            return batches(*(_with_shifts(x, y) if task.shifts else (x, y)), train=False)

        self.task, self.fingerprint, self.source, self.split = task, images.fingerprint, images.source, split
        self.train = batches(images.train_images[split.train], images.train_labels[split.train], train=True)
        self.eval = {"test": evaluation(images.test_images, images.test_labels)}
        if len(split.valid):
            self.eval["valid"] = evaluation(images.train_images[split.valid], images.train_labels[split.valid])
        self.splits = tuple(sorted(self.eval, reverse=True))

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch; the last partial one counts."""
        return -(-len(self.train) // batch_size)

    def epoch(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, cropped and flipped: x (B, C, H, W) float32, y (B,) int64."""
        return self.train.epoch(batch_size, seed)

    def plain(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images in fixed order, not augmented."""
        return self.train.plain(EVAL_BATCH)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """Cross-entropy in nats, summed over the batch."""
        x, y = batch
        return F.cross_entropy(model(x).float(), y, reduction="sum"), len(y)

    def outputs(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Class probabilities, (B, K) float32."""
        return model(batch[0]).float().softmax(dim=1)

    def targets(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The right class of each image, (B,) int64."""
        return batch[1]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """score: accuracy in percent, loss: mean cross-entropy in nats."""
        totals, count = [], 0
        for x, y in self.eval[split].plain(EVAL_BATCH):
            logits = model(x).float()  # (B, K)
            right, loss_sum = (logits.argmax(1) == y).sum(), F.cross_entropy(logits, y, reduction="sum")
            totals.append(torch.stack([right.float(), loss_sum]))  # stays on the device until the split is done
            count += len(y)
        correct, loss = torch.stack(totals).double().sum(0).tolist()
        return {"score": 100.0 * correct / count, "loss": loss / count}

    def describe(self) -> dict[str, Any]:
        """Counts, source, and the stored indices of the subsample and the hold-out."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "train": len(self.train),
            **{split: len(batches) for split, batches in self.eval.items()},
            "train_indices": self.split.train.tolist(),
            "valid_indices": self.split.valid.tolist(),
        }


@lru_cache(maxsize=1)
def _images(dataset: str, folder: Path | None) -> ImageSet:
    return load_images(dataset, folder)  # read once a process, whatever the subsample


def _with_shifts(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image and its four one-pixel shifts, filled with zeros. (N, H, W, C), (N,) -> (5N, H, W, C), (5N,)"""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifted = [padded[:, dy : dy + height, dx : dx + width] for dy, dx in SHIFTS]
    return np.concatenate(shifted), np.tile(y, len(SHIFTS))
