"""Tiny stand-ins for CIFAR-10 in each of its layouts: 20 training and 10 test images of random pixels."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torchvision
from fake_cifar import batch, table

from twore.data import ImageSet


@pytest.fixture
def tiny() -> ImageSet:
    draw = np.random.default_rng(0)
    return ImageSet(
        train_images=draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8),
        train_labels=np.arange(20) % 10,
        test_images=draw.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8),
        test_labels=np.arange(10)[::-1].copy(),
        classes=10,
        fingerprint="sha256:0",
        source="random",
    )


@pytest.fixture
def parquet_folder(tmp_path: Path, tiny: ImageSet) -> Path:
    """A folder with a sub-folder cifar10/: training images in two shards, as the hub has them."""
    folder = tmp_path / "parquet"
    (folder / "cifar10").mkdir(parents=True)
    for shard, rows in enumerate((slice(0, 12), slice(12, 20))):
        path = folder / "cifar10" / f"train-0000{shard}-of-00002.parquet"
        pq.write_table(table(tiny.train_images[rows], tiny.train_labels[rows]), path)
    pq.write_table(table(tiny.test_images, tiny.test_labels), folder / "cifar10" / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture
def batches_folder(tmp_path: Path, tiny: ImageSet) -> Path:
    """A folder with cifar-10-batches-py/ in it: five batches of four images, a test batch and the class names."""
    folder = tmp_path / "pickled"
    inner = folder / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    for number in range(5):
        rows = slice(4 * number, 4 * number + 4)
        (inner / f"data_batch_{number + 1}").write_bytes(batch(tiny.train_images[rows], tiny.train_labels[rows]))
    (inner / "test_batch").write_bytes(batch(tiny.test_images, tiny.test_labels))
    (inner / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return folder


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Call it to make the md5 of the files in a folder of batches the published ones."""

    def declare(folder: Path) -> None:
        def md5(file: str) -> str:
            return hashlib.md5((folder / file).read_bytes()).hexdigest()

        reader = torchvision.datasets.CIFAR10
        names = [f"data_batch_{number}" for number in range(1, 6)]
        monkeypatch.setattr(reader, "train_list", [[file, md5(file)] for file in names])
        monkeypatch.setattr(reader, "test_list", [["test_batch", md5("test_batch")]])
        monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5("batches.meta")})

    return declare
