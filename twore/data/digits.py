"""The embedded data set: scikit-learn's handwritten digits, 1,797 real 8x8 grey images in 10 classes.

Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), its test part, as shipped inside
scikit-learn. It needs no network and no folder, so the quick presets run anywhere. The data set has no standard split;
the one below is fixed and stratified: 1,297 images to train on and 500 to test on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twore.data.images import DataError, ImageSet, content_fingerprint, content_sha256

FINGERPRINT = "sha256:b32b216f1f78baafd7bf7c52416fa6df"  # of the content below; a test recomputes it
TEST_IMAGES = 500  # our choice: a standard error of about one point at 95 % accuracy, and 1,297 left to train on
SPLIT_SEED = 0  # our choice


def load_digits() -> ImageSet:
    """The digits as uint8 (N, 8, 8, 1), in their original order within each part."""
    from sklearn.datasets import load_digits as read_digits  # takes a second to import: only when used

    raw = read_digits()
    pixels = ((raw.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[..., None]  # 0..16 -> 0..255, rounded
    labels = raw.target.astype(np.int64)
    is_test = _test_part(labels)
    parts = pixels[~is_test], labels[~is_test], pixels[is_test], labels[is_test]
    fingerprint = content_fingerprint(content_sha256(*parts))
    if fingerprint != FINGERPRINT:
        raise DataError(f"scikit-learn's digits are not the known ones ({fingerprint}): reinstall scikit-learn")
    source = "scikit-learn's digits, a fixed 1,297/500 split"
    return ImageSet(*parts, classes=10, fingerprint=fingerprint, source=source)


def _test_part(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the test images: of each class its share of `TEST_IMAGES`, by largest remainder, in a seeded order."""
    share = np.bincount(labels) * TEST_IMAGES / labels.size
    wanted = np.floor(share).astype(np.int64)
    wanted[np.argsort(wanted - share, kind="stable")[: TEST_IMAGES - wanted.sum()]] += 1
    keys = np.random.PCG64(SPLIT_SEED).random_raw(labels.size)  # a stream that numpy keeps across releases
    chosen = np.zeros(labels.size, dtype=np.bool_)
    for class_, count in enumerate(wanted):
        members = np.flatnonzero(labels == class_)
        chosen[members[np.argsort(keys[members], kind="stable")[:count]]] = True
    return chosen
