"""The prepared form of an image data set: one safetensors file and a JSON manifest beside it.

Written by `data_scripts/prepare_cifar10.py`, read in well under a second, holding no code. The manifest is written
last: it is what makes the data set prepared. Reading recomputes the content's SHA-256 and compares.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twore.data.images import DataError, ImageSet, content_fingerprint, content_sha256, known_fingerprint
from twore.files import CorruptFileError, read_tensors, write_tensors, write_text

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def prepared_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """(tensors, manifest) of the data set `name` in `folder`."""
    return folder / f"{name}.safetensors", folder / f"{name}.manifest.json"


def is_prepared(folder: Path, name: str) -> bool:
    """True when the manifest is there; the content is checked on reading."""
    return prepared_paths(folder, name)[1].is_file()


def write_prepared(folder: Path, name: str, images: ImageSet, *, licence: str) -> dict[str, Any]:
    """Write both files, each whole or not at all, and return the manifest."""
    tensors_path, manifest_path = prepared_paths(folder, name)
    arrays = {part: np.ascontiguousarray(getattr(images, part)) for part in PARTS}
    manifest = {
        "name": name,
        "classes": images.classes,
        "image_shape": list(images.train_images.shape[1:]),
        "train": len(images.train_labels),
        "test": len(images.test_labels),
        "train_per_class": np.bincount(images.train_labels, minlength=images.classes).tolist(),
        "test_per_class": np.bincount(images.test_labels, minlength=images.classes).tolist(),
        "fingerprint": images.fingerprint,
        "content_sha256": content_sha256(**arrays),
        "source": images.source,
        "licence": licence,
        "prepared_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    manifest_path.unlink(missing_ok=True)  # or a kill between the two writes would pair an old manifest with new pixels
    write_tensors(tensors_path, {part: torch.tensor(array) for part, array in arrays.items()})
    write_text(manifest_path, json.dumps(manifest, indent=2) + "\n")
    return manifest


def read_prepared(folder: Path, name: str) -> ImageSet:
    """Read what `write_prepared` wrote; `DataError` when either file is missing, damaged or of another data set."""
    tensors_path, manifest_path = prepared_paths(folder, name)
    way_out = "delete both files and run data_scripts/prepare_cifar10.py again"
    manifest = read_manifest(folder, name)
    try:
        tensors, _ = read_tensors(tensors_path)
        arrays = {part: tensors[part].numpy() for part in PARTS}
    except FileNotFoundError as error:
        raise DataError(f"{tensors_path} is missing beside its manifest: {way_out}") from error
    except (CorruptFileError, KeyError) as error:
        raise DataError(f"{tensors_path} is damaged: {way_out}") from error
    sha256 = content_sha256(**arrays)
    if sha256 != manifest["content_sha256"]:
        raise DataError(f"{tensors_path} does not hold what {manifest_path.name} says: {way_out}")
    fingerprint = manifest["fingerprint"]
    if manifest["name"] != name or fingerprint not in (content_fingerprint(sha256), known_fingerprint(name)):
        raise DataError(f"{manifest_path} declares another data set ({fingerprint}): {way_out}")
    source = f"{tensors_path}, prepared from {manifest['source']}"
    return ImageSet(
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        classes=manifest["classes"],
        fingerprint=fingerprint,
        source=source,
    )


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """The manifest alone, without reading the images; `DataError` when it is damaged."""
    path = prepared_paths(folder, name)[1]
    needed = {"name": str, "classes": int, "fingerprint": str, "content_sha256": str, "source": str}
    try:
        manifest = json.loads(path.read_text())
        whole = all(isinstance(manifest[key], kind) for key, kind in needed.items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: delete it and run data_scripts/prepare_cifar10.py again") from error
    if not whole:
        raise DataError(f"{path} is not a manifest: delete it and run data_scripts/prepare_cifar10.py again")
    return manifest
