"""CIFAR in its layouts: the same pixels from each; nothing unpickled before its checksum; one sentence a fault."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from fake_cifar import CELL, png, table

from twore.data import STATISTICS, DataError, ImageSet, known_fingerprint, load_images
from twore.data.cifar import CIFAR
from twore.data.prepared import prepared_paths, write_prepared


def same(found: ImageSet, expected: ImageSet) -> bool:
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    return all(np.array_equal(getattr(found, part), getattr(expected, part)) for part in parts)


def test_archive_checksums_are_torchvisions():
    assert CIFAR["cifar10"].archive_md5 == torchvision.datasets.CIFAR10.tgz_md5
    assert CIFAR["cifar100"].archive_md5 == torchvision.datasets.CIFAR100.tgz_md5
    for spec in CIFAR.values():
        assert spec.torchvision_class().base_folder == spec.batches and spec.urls[-1] == spec.torchvision_class().url


# --- parquet


def test_parquet_gives_the_pixels_in_order(parquet_folder: Path, tiny: ImageSet):
    for folder in (parquet_folder, parquet_folder / "cifar10"):  # in the sub-folder of its name, or directly
        found = load_images("cifar10", folder)
        assert same(found, tiny)
        assert found.fingerprint.startswith("sha256:") and len(found.fingerprint) == 7 + 32


def test_parquet_fingerprint_depends_on_content_only(parquet_folder: Path, tiny: ImageSet, tmp_path: Path):
    (tmp_path / "one").mkdir()
    pq.write_table(table(tiny.train_images, tiny.train_labels, image="image"), tmp_path / "one" / "train.parquet")
    pq.write_table(table(tiny.test_images, tiny.test_labels, image="image"), tmp_path / "one" / "test.parquet")
    one = load_images("cifar10", tmp_path / "one")
    assert one.fingerprint == load_images("cifar10", parquet_folder).fingerprint


def test_cifar100_uses_the_fine_label(tiny: ImageSet, tmp_path: Path):
    for part, images, labels in (
        ("train", tiny.train_images, tiny.train_labels),
        ("test", tiny.test_images, tiny.test_labels),
    ):
        fine = table(images, labels + 90, "fine_label")
        pq.write_table(fine.append_column("coarse_label", pa.array(labels)), tmp_path / f"{part}.parquet")
    found = load_images("cifar100", tmp_path)
    assert found.train_labels.max() == 99 and found.classes == 100


def _replace_test(folder: Path, content: pa.Table) -> None:
    pq.write_table(content, folder / "cifar10" / "test-00000-of-00001.parquet")


def _cells(*values: bytes | None) -> pa.Table:
    labels = pa.array([0] * len(values), pa.int64())
    return pa.table({"img": pa.array([{"bytes": value} for value in values], CELL), "label": labels})


IMAGE = np.full((32, 32, 3), 7, np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(IMAGE[None], np.array([10])), r"test labels must be in \[0, 10\): found 10"),
        (table(IMAGE[None], np.array([0]), label="topic"), "no column 'label' but img, topic"),
        (table(IMAGE[None], np.array([0]), image="picture"), "no column 'img' or 'image'"),
        (table(IMAGE[None, :16], np.array([0])), "32x32 pixels: got RGB 16x32"),
        (table(IMAGE[None, ..., 0], np.array([0])), "RGB image of 32x32 pixels: got L"),
        (_cells(png(IMAGE), png(IMAGE)[:-30]), "row 1 of the test part .* not an intact PNG"),
        (_cells(png(IMAGE).replace(b"IDAT", b"IDAX")), "not an intact PNG"),
        (_cells(b"GIF89a"), "not an intact PNG"),
        (_cells(None), "row 0 .* no image bytes"),
        (_cells(), "no rows"),
        (pa.table({"img": [1], "label": [0]}), "must hold the images' bytes"),
        (pa.table({"img": _cells(png(IMAGE))["img"], "label": pa.array([None], pa.int64())}), "integer in every row"),
    ],
)
def test_bad_tables_are_refused(parquet_folder: Path, content: pa.Table, message: str):
    _replace_test(parquet_folder, content)
    with pytest.raises(DataError, match=message):
        load_images("cifar10", parquet_folder)


def test_damaged_or_missing_parquet_files(parquet_folder: Path):
    inner = parquet_folder / "cifar10"
    shard = inner / "train-00001-of-00002.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged or no parquet file"):
        load_images("cifar10", parquet_folder)
    shard.unlink()
    with pytest.raises(DataError, match="1 train parquet files of 2"):
        load_images("cifar10", parquet_folder)
    (inner / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="for test only"):
        load_images("cifar10", parquet_folder)
    (inner / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="no CIFAR-10 in .*prepare_cifar10.py"):
        load_images("cifar10", parquet_folder)


# --- official batches


def test_official_batches(batches_folder: Path, tiny: ImageSet, publish):
    publish(batches_folder / "cifar-10-batches-py")
    (batches_folder / "cifar10").mkdir()  # an empty sub-folder of its name must not hide them
    for folder in (batches_folder, batches_folder / "cifar-10-batches-py"):
        found = load_images("cifar10", folder)
        assert same(found, tiny)
        assert found.fingerprint == known_fingerprint("cifar10")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)  # what unpickling would run


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_nothing_is_unpickled_unless_every_checksum_matches(batches_folder: Path, tmp_path: Path, publish, file: str):
    inner = batches_folder / "cifar-10-batches-py"
    first = inner / "data_batch_1"
    if file != "data_batch_1":  # the very first file would run code, and has the right checksum
        first.write_bytes(pickle.dumps(_Bomb(tmp_path / "ran")))
    publish(inner)
    (inner / file).write_bytes(pickle.dumps(_Bomb(tmp_path / "ran")) + b" ")
    with pytest.raises(DataError, match=f"{file} is not the published file"):
        load_images("cifar10", batches_folder)
    assert not (tmp_path / "ran").exists()


def test_missing_batch_is_named(batches_folder: Path, publish):
    publish(batches_folder / "cifar-10-batches-py")
    (batches_folder / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3 is missing"):
        load_images("cifar10", batches_folder)


# --- prepared


def test_prepared_gives_the_same_set_and_wins(parquet_folder: Path, tiny: ImageSet):
    original = load_images("cifar10", parquet_folder)
    manifest = write_prepared(parquet_folder / "cifar10", "cifar10", original, licence="none")
    assert manifest["train_per_class"] == [2] * 10 and manifest["test_per_class"] == [1] * 10
    found = load_images("cifar10", parquet_folder)
    assert same(found, tiny) and found.fingerprint == original.fingerprint
    assert "prepared from parquet" in found.source


def test_prepared_from_official_batches_keeps_the_declared_fingerprint(batches_folder: Path, tmp_path: Path, publish):
    publish(batches_folder / "cifar-10-batches-py")
    write_prepared(tmp_path, "cifar10", load_images("cifar10", batches_folder), licence="none")
    assert load_images("cifar10", tmp_path).fingerprint == known_fingerprint("cifar10")


def test_damaged_prepared_files_are_refused(parquet_folder: Path, tmp_path: Path):
    images = load_images("cifar10", parquet_folder)
    tensors, manifest = prepared_paths(tmp_path, "cifar10")
    write_prepared(tmp_path, "cifar10", images, licence="none")
    good, text = tensors.read_bytes(), manifest.read_text()

    tensors.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DataError, match="damaged"):
        load_images("cifar10", tmp_path)
    tensors.write_bytes(good[:1000])
    with pytest.raises(DataError, match="damaged"):
        load_images("cifar10", tmp_path)
    tensors.unlink()
    with pytest.raises(DataError, match="missing beside its manifest"):
        load_images("cifar10", tmp_path)
    tensors.write_bytes(good)
    for old, new, message in (
        ('"content_sha256": "', '"content_sha256": "0', "does not hold what"),
        ('"fingerprint": "sha256:', '"fingerprint": "sha256:0', "another data set"),
        ('"name": "cifar10"', '"name": "cifar100"', "another data set"),
        ('"classes": 10', '"classes": "ten"', "not a manifest"),
        ("{", "", "cannot be read"),
    ):
        assert old in text
        manifest.write_text(text.replace(old, new, 1))
        with pytest.raises(DataError, match=message):
            load_images("cifar10", tmp_path)
    manifest.write_text(text)
    assert same(load_images("cifar10", tmp_path), images)


# --- the hub


@pytest.fixture
def online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_hub_out_of_reach_fails_at_once(monkeypatch, online):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("the hub client was called"))
        with pytest.raises(DataError, match="no connection to 127.0.0.1.*--data DIR.*TWORE_DATA.*prepare_cifar10.py"):
            load_images("cifar10", None)


def test_hub_data_equal_the_same_parquet(monkeypatch, online, parquet_folder: Path):
    import datasets

    expected = load_images("cifar10", parquet_folder)
    files = {
        part: sorted(str(path) for path in (parquet_folder / "cifar10").glob(f"{part}*")) for part in ("train", "test")
    }
    asked = []

    def fake(repository: str) -> datasets.DatasetDict:
        asked.append(repository)
        return datasets.DatasetDict(
            {part: datasets.Dataset(pa.concat_tables(map(pq.read_table, paths))) for part, paths in files.items()}
        )

    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: None)
    monkeypatch.setattr("datasets.load_dataset", fake)
    found = load_images("cifar10", None)
    assert asked == ["uoft-cs/cifar10"] and same(found, expected) and found.fingerprint == expected.fingerprint


def test_failed_hub_download_says_so(monkeypatch, online):
    def fail(_: str) -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: None)
    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match="the download failed with ConnectionError.*--data DIR"):
        load_images("cifar10", None)


# --- real data, where there is some


@pytest.mark.slow
def test_real_cifar10_has_the_published_statistics():
    folder = Path(os.environ.get("TWORE_DATA", "/nowhere"))
    try:
        images = load_images("cifar10", folder)
    except DataError as error:
        pytest.skip(f"no CIFAR-10 in TWORE_DATA: {error}")
    assert images.train_images.shape == (50000, 32, 32, 3) and images.test_images.shape == (10000, 32, 32, 3)
    assert np.bincount(images.train_labels).tolist() == [5000] * 10
    pixels = images.train_images.reshape(-1, 3) / np.float32(255)
    assert tuple(pixels.mean(0, dtype=np.float64).round(4)) == STATISTICS["cifar10"].mean
    assert tuple(pixels.std(0, dtype=np.float64).round(4)) == STATISTICS["cifar10"].std
