"""Image sets refuse what is wrong; subsamples are stratified, nested, and the same for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twore.data import (
    DataError,
    ImageSet,
    data_folder,
    known_fingerprint,
    load_images,
    subsample,
)
from twore.data.images import content_sha256

LABELS = np.repeat(np.arange(10), 100)[np.random.default_rng(1).permutation(1000)]  # 100 of each class, shuffled


@pytest.mark.parametrize("percent", [1, 5, 10, 33.3, 100])
def test_subsample_takes_the_same_share_of_each_class(percent):
    split = subsample(LABELS, percent=percent, seed=3)
    assert np.bincount(LABELS[split.train]).tolist() == [round(percent)] * 10
    assert split.valid.size == 0
    assert np.array_equal(split.train, np.unique(split.train))


def test_everything_is_every_index():
    assert np.array_equal(subsample(LABELS, percent=100, seed=0).train, np.arange(1000))


@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_smaller_subsamples_lie_within_larger_ones_and_never_touch_the_holdout(holdout):
    splits = [subsample(LABELS, percent=percent, holdout=holdout, seed=7) for percent in (1, 5, 10, 50, 100)]
    for small, large in zip(splits, splits[1:], strict=False):
        assert set(small.train) < set(large.train)
        assert np.array_equal(small.valid, large.valid)
    everything = splits[-1]
    assert np.array_equal(np.sort(np.concatenate([everything.train, everything.valid])), np.arange(1000))
    assert np.bincount(LABELS[everything.valid], minlength=10).tolist() == [round(100 * holdout)] * 10


def test_percent_applies_to_what_the_holdout_leaves():
    assert subsample(LABELS, percent=50, holdout=0.2, seed=0).train.size == 400


def test_at_least_one_image_of_each_class():
    split = subsample(np.array([0, 0, 0, 1, 1]), percent=0.1, holdout=0.01, seed=0)
    assert split.train.size == 2 and split.valid.size == 2
    assert not set(split.train) & set(split.valid)


def test_other_seed_other_images():
    first, second = (subsample(LABELS, percent=10, seed=seed).train for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_golden_subsample():  # stored results depend on these indices: a change is a new data set, not a fix
    split = subsample(np.arange(30) % 3, percent=20, holdout=0.1, seed=0)
    assert (split.train.tolist(), split.valid.tolist()) == ([1, 3, 11, 13, 20, 21], [16, 26, 27])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1], {"percent": 0}, "percent"),
        ([0, 1], {"percent": 101}, "percent"),
        ([0, 1], {"percent": float("nan")}, "percent"),
        ([0, 1], {"percent": 10, "holdout": 1.0}, "holdout"),
        ([0, 1], {"percent": 10, "holdout": -0.1}, "holdout"),
        ([0, 1], {"percent": 10, "seed": -1}, "seed"),
        ([0, 2], {"percent": 10}, "class 1 has no image"),
        ([0, 1], {"percent": 10, "holdout": 0.1}, "leaves it none"),
        ([], {"percent": 10}, "non-empty"),
        ([0.5], {"percent": 10}, "integers"),
        ([-1, 0], {"percent": 10}, "non-negative"),
    ],
)
def test_subsample_refuses(labels, options, message):
    with pytest.raises(ValueError, match=message):
        subsample(np.array(labels), **{"seed": 0, **options})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train_images", lambda a: a.astype(np.float32), "uint8"),
        ("train_images", lambda a: a[..., 0], "N, H, W, C"),
        ("test_images", lambda a: a[:0], "N, H, W, C"),
        ("test_images", lambda a: a[:, :30], "one shape"),
        ("train_labels", lambda a: a[:-1], "20 int64"),
        ("train_labels", lambda a: a.astype(np.int32), "int64"),
        ("train_labels", lambda a: a + 1, r"\[0, 10\): found 10"),
        ("test_labels", lambda a: a - 1, r"\[0, 10\): found -1"),
    ],
)
def test_image_set_refuses(tiny: ImageSet, part, change, message):
    with pytest.raises(DataError, match=message):
        replace(tiny, **{part: change(getattr(tiny, part))})


def test_content_hash_depends_on_every_array_and_on_shape(tiny: ImageSet):
    arrays = [tiny.train_images, tiny.train_labels, tiny.test_images, tiny.test_labels]
    hashes = {content_sha256(*arrays)}
    for position, array in enumerate(arrays):
        changed = array.copy()
        changed.flat[-1] ^= 1
        hashes.add(content_sha256(*arrays[:position], changed, *arrays[position + 1 :]))
    hashes.add(content_sha256(tiny.train_images.reshape(20, 16, 64, 3), *arrays[1:]))
    assert len(hashes) == 6


def test_unknown_name_gets_a_hint():
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        load_images("CIFAR-10", None)
    with pytest.raises(DataError, match="choose one of digits, cifar10, cifar100"):
        known_fingerprint("imagenet")


def test_known_fingerprints_are_the_published_archives():
    assert known_fingerprint("cifar10") == "cifar10-c58f30108f718f92721af3b95e74349a"
    assert known_fingerprint("cifar100") == "cifar100-eb9058c3a382ffc7106e4002c42a8d85"


def test_data_folder(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TWORE_DATA", raising=False)
    assert data_folder(None) is None
    monkeypatch.setenv("TWORE_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    (tmp_path / "inner").mkdir()
    assert data_folder(str(tmp_path / "inner")) == tmp_path / "inner"  # the option wins
    with pytest.raises(DataError, match="given by --data, does not exist"):
        data_folder(str(tmp_path / "absent"))
    monkeypatch.setenv("TWORE_DATA", __file__)
    with pytest.raises(DataError, match="given by TWORE_DATA, is not a folder"):
        data_folder(None)
