"""Images and labels of one data set as plain arrays, the folder they come from, and stratified subsamples.

An `ImageSet` is the raw value every reader returns: uint8 pixels, integer labels, and a fingerprint that says which
pixels these are. The subsamples are those of section 6.1 of the report ({1, 5, 10, 100} % of CIFAR-10), made stratified
and nested, so that 1 % lies within 5 % within 10 %.

N images, H height, W width, C colour channels.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA_SETS = ("digits", "cifar10", "cifar100")


class DataError(ValueError):
    """Data is missing, corrupt or of the wrong shape; the message is one sentence that names the way out."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A labelled image data set with its standard training and test parts.

    `fingerprint` is the same for the same pixels and labels in the same order (see `known_fingerprint`); `source` says
    in words where they came from. Construction checks everything and raises `DataError`.
    """

    train_images: NDArray[np.uint8]  # (N, H, W, C)
    train_labels: NDArray[np.int64]  # (N,), in [0, classes)
    test_images: NDArray[np.uint8]  # (N', H, W, C)
    test_labels: NDArray[np.int64]  # (N',)
    classes: int
    fingerprint: str
    source: str

    def __post_init__(self) -> None:
        _check_part("training", self.train_images, self.train_labels, self.classes)
        _check_part("test", self.test_images, self.test_labels, self.classes)
        train_shape, test_shape = self.train_images.shape[1:], self.test_images.shape[1:]
        if train_shape != test_shape:
            raise DataError(f"training and test images must be of one shape: got {train_shape} and {test_shape}")
        if not self.fingerprint:
            raise DataError("an image set needs a fingerprint: use content_fingerprint")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices into the training images, int64 and ascending; `train` and `valid` never overlap."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]  # empty without a hold-out


def load_images(name: str, folder: Path | None) -> ImageSet:
    """Read the data set `name` (one of `DATA_SETS`) from `folder`, or from the Hugging Face hub when that is None.

    "digits" comes with scikit-learn and needs neither. Raises `DataError` in one sentence.
    """
    _check_name(name)
    # The readers import this module, and each needs a library the others do not: so they are imported when used.
    if name == "digits":
        from twore.data.digits import load_digits

        return load_digits()
    from twore.data.cifar import load_cifar

    return load_cifar(name, folder)


def known_fingerprint(name: str) -> str | None:
    """The declared fingerprint of the standard data set `name`, without touching any data.

    CIFAR's is the published md5 of its archive; data read from elsewhere (parquet, the hub) has its own fingerprint, a
    hash of its content. None for a data set of which none is declared.
    """
    _check_name(name)
    if name == "digits":
        from twore.data.digits import FINGERPRINT

        return FINGERPRINT
    from twore.data.cifar import CIFAR

    return CIFAR[name].fingerprint


def data_folder(option: str | None) -> Path | None:
    """The folder of data sets: `option` (--data), else the environment variable TWORE_DATA, else None."""
    given = option or os.environ.get("TWORE_DATA")
    if not given:
        return None
    folder, said_by = Path(given).expanduser(), "--data" if option else "TWORE_DATA"
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}, given by {said_by}, {problem}: name the folder that holds the data set's files")
    return folder


def content_sha256(
    train_images: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    test_images: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> str:
    """SHA-256 (64 hex digits) over the four arrays in this order: shape, then values; labels as little-endian int64."""
    digest = hashlib.sha256()
    for array, dtype in ((train_images, "u1"), (train_labels, "<i8"), (test_images, "u1"), (test_labels, "<i8")):
        digest.update(f"{array.shape}".encode())  # without it, other shapes of the same bytes would agree
        digest.update(np.ascontiguousarray(array, dtype=dtype).data)
    return digest.hexdigest()


def content_fingerprint(sha256: str) -> str:
    """The fingerprint of data that is not a declared standard archive: a prefix of its `content_sha256`."""
    return f"sha256:{sha256[:32]}"  # 128 bits: no accidental collision; our choice


def subsample(labels: NDArray[np.int64], *, percent: float, holdout: float = 0.0, seed: int) -> Split:
    """A stratified, nested subsample of the images with these `labels` (N,), and a held-out validation part.

    Each class is put in one seeded order. The hold-out takes round(holdout * n) images from the end of it, whatever the
    percentage; training takes round(percent / 100 * m) from its front, m being what the hold-out left (each at least
    one). So for equal seed and holdout a smaller percentage lies within a larger one, and the hold-out is the same.

    Raises ValueError unless 0 < percent <= 100, 0 <= holdout < 1, and every class has enough images.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent of the training data must be in (0, 100]: got {percent}")
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout is the fraction of training data held out, in [0, 1): got {holdout}")
    if seed < 0:
        raise ValueError(f"the subsample's seed must not be negative: got {seed}")
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise DataError("labels to subsample must be a non-empty row of non-negative integers")
    counts = np.bincount(labels)
    if not counts.all():
        raise DataError(f"class {int(np.argmin(counts))} has no image: a stratified subsample needs every class")

    # The raw stream of PCG64 is what numpy promises to keep for ever; Generator.permutation may change with a release.
    keys = np.random.PCG64(seed).random_raw(labels.size)
    by_class = np.split(np.lexsort((keys, labels)), np.cumsum(counts)[:-1])  # a seeded order of each class
    train, valid = [], []
    for class_, order in enumerate(by_class):
        held = max(1, round(holdout * order.size)) if holdout > 0 else 0
        left = order.size - held
        if left < 1:
            raise DataError(f"class {class_} has {order.size} images and holding out {holdout:g} leaves it none")
        train.append(order[: max(1, round(percent / 100 * left))])
        valid.append(order[left:])
    return Split(np.sort(np.concatenate(train)).astype(np.int64), np.sort(np.concatenate(valid)).astype(np.int64))


def _check_name(name: str) -> None:
    if name not in DATA_SETS:
        plain = "".join(letter for letter in name.lower() if letter.isalnum())  # "CIFAR-10" -> "cifar10"
        near = difflib.get_close_matches(plain, DATA_SETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(DATA_SETS)}"
        raise DataError(f"unknown image data set {name!r}: {hint}")


def _check_part(part: str, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise DataError(f"{part} images must be uint8 of shape (N, H, W, C): got {images.dtype} {images.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{part} labels must be {len(images)} int64 numbers, one an image: got {labels.dtype} {labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise DataError(f"{part} labels must be in [0, {classes}): found {wrong}; the file is of another data set")
