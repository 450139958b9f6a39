"""The embedded digits: their content, their fixed split, and their declared fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from twore.data import STATISTICS, DataError, digits, known_fingerprint, load_images
from twore.data.images import content_fingerprint, content_sha256


def test_content_is_scikit_learns_and_matches_the_declared_fingerprint():
    images = load_images("digits", None)
    assert images.train_images.shape == (1297, 8, 8, 1) and images.test_images.shape == (500, 8, 8, 1)
    parts = images.train_images, images.train_labels, images.test_images, images.test_labels
    assert content_fingerprint(content_sha256(*parts)) == images.fingerprint == known_fingerprint("digits")
    raw = load_digits()
    # 0..16 -> 0..255 is one to one, so every image of scikit-learn's must be in one part, once, with its label.
    back = np.rint(np.concatenate([images.train_images, images.test_images]) / 255 * 16).reshape(-1, 64)
    rows = np.column_stack([back, np.concatenate([images.train_labels, images.test_labels])])
    expected = np.column_stack([raw.data, raw.target])
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    assert images.train_images.max() == 255 and 128 in images.train_images  # 8 of 16 is 127.5, rounded up


def test_split_is_stratified():
    images = load_images("digits", None)
    share = np.bincount(load_digits().target) * 500 / 1797
    assert np.abs(np.bincount(images.test_labels) - share).max() < 1


def test_other_content_is_refused(monkeypatch):
    monkeypatch.setattr(digits, "SPLIT_SEED", 1)
    with pytest.raises(DataError, match="not the known ones"):
        load_images("digits", None)


def test_statistics_are_those_of_the_training_images():
    pixels = load_images("digits", None).train_images / 255
    assert (round(pixels.mean(), 4),) == STATISTICS["digits"].mean
    assert (round(pixels.std(), 4),) == STATISTICS["digits"].std
