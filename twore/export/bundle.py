"""A folder to hand on: the model in the forms asked for, what makes it loadable, and measured bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from twore.checkpoints import CheckpointError, check_out, model_files, new_folder, open_checkpoint
from twore.export.compact import export_compact, restore_compact
from twore.export.onnx import export_onnx
from twore.export.plain import export_safetensors
from twore.export.sizes import measure_sizes
from twore.files import write_text
from twore.pruning.choices import unknown

FILES = {"safetensors": "model.safetensors", "compact": "compact.safetensors", "onnx": "model.onnx"}


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote."""

    out: Path
    sizes: pd.DataFrame  # see measure_sizes; safetensors and compact are measured even where they were not asked for


def export_model(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    forms: Sequence[str] = ("safetensors", "compact"),
    compressed: bool = True,
) -> Exported:
    """Write the checkpoint at `path` to the new folder `out`: FILES of the forms asked for, and sizes.csv.

    A Hugging Face folder brings its config and tokenizer along, so that `from_pretrained` loads `out` when safetensors
    is among the forms. compressed: also measure what zlib and lzma would make of the files (about a second for 10 MB).
    """
    source, target = Path(path), Path(out)
    for form in forms:
        if form not in FILES:
            raise unknown("form", form, FILES)
    open_checkpoint(source)  # a wrong path is said before anything is made
    check_out(source, target, folder=True)
    with new_folder(target) as place:
        if "onnx" in forms:
            export_onnx(source, place / FILES["onnx"])  # first, since it is what may fail
        _copy_model_files(source, place)
        written = {form: place / FILES[form] for form in ("safetensors", "compact")}
        export_safetensors(source, written["safetensors"])
        export_compact(source, written["compact"])
        sizes = measure_sizes(written, compressed=compressed)
        write_text(place / "sizes.csv", sizes.to_csv(index=False))
        for form, file in written.items():
            if form not in forms:
                file.unlink()
    return Exported(target, sizes)


def restore_model(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """The dense model of a compact file, or of a folder with compact.safetensors; a folder gives a folder.

    CheckpointError when there is no compact file or it is damaged. Returns `out`.
    """
    source, target = Path(path), Path(out)
    if not source.is_dir():
        return restore_compact(source, target)
    compact = source / FILES["compact"]
    if not compact.is_file():
        raise CheckpointError(f"{source} has no {FILES['compact']}: pass a folder or file that `twore export` wrote")
    check_out(source, target, folder=True)
    with new_folder(target) as place:
        _copy_model_files(source, place)
        restore_compact(compact, place / FILES["safetensors"])
    return target


def _copy_model_files(source: Path, place: Path) -> None:
    if not source.is_dir():
        return
    for relative in model_files(source):
        (place / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / relative, place / relative)
