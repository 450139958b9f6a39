"""Prune a checkpoint: the same layout comes out, with zeros in place, masks beside it and a report.

A Hugging Face folder gives a folder that `from_pretrained` loads: config, tokenizer, weights in the same files and
dtypes; beside them `masks.safetensors` (bit-packed, `twore.pruning.load_masks`, for holding them in fine-tuning),
`pruning.csv` (a row a layer) and `pruning.json` (how it was done). A file gives a file, and those three beside it
under its name.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from twore.checkpoints import (
    Checkpoint,
    Layer,
    LayerChoice,
    LazyTensors,
    check_out,
    find_layers,
    new_files,
    new_folder,
    open_checkpoint,
    other_files,
    write_like,
)
from twore.checkpoints.pickles import PickleFile
from twore.export.masks import PackedMasks, masks_of
from twore.files import write_text
from twore.pruning import ALLOCATIONS, SCORES, save_masks
from twore.pruning.choices import listed, unknown
from twore.pruning.masks import check_ratio
from twore.pruning.scores import Score


@dataclass(frozen=True)
class PrunedCheckpoint:
    """What `prune_checkpoint` wrote."""

    out: Path
    masks: Path
    layers: pd.DataFrame  # name, kind, shape, dtype, size, asked, got, kept: see report_of
    notes: tuple[str, ...]  # a sentence each: what was left dense, and what choices mean
    left_behind: tuple[str, ...]  # files of the folder that are not the model's (optimizer states, logs)
    total: int  # entries of the whole checkpoint

    @property
    def size(self) -> int:
        """Entries of the chosen layers."""
        return int(self.layers["size"].sum())

    @property
    def kept(self) -> int:
        return int(self.layers["kept"].sum())


def prune_checkpoint(
    path: str | os.PathLike[str],
    ratio: float,
    out: str | os.PathLike[str],
    *,
    choose: LayerChoice | None = None,
    score: str | Score = "magnitude",
    allocation: str = "uniform",
) -> PrunedCheckpoint:
    """Prune the checkpoint at `path` and write the result to `out`, whole or not at all.

    path: a Hugging Face folder, a .safetensors file, or a state dict of torch.save; it is only read.
    ratio: the fraction of the chosen layers' entries that is removed, in [0, 1).
    out: a new folder, or a new file with the same suffix, outside `path`.
    choose: which layers, and what to do with tied weights; default: every linear and convolution layer, ties refused.
    score, allocation: as in `twore.pruning.make_masks`.

    Raises ValueError or FileNotFoundError, one sentence each, before anything is written.
    """
    source, target, choice = Path(path), Path(out), choose or LayerChoice()
    ratio = check_ratio(ratio)
    if allocation not in ALLOCATIONS:
        raise unknown("allocation", allocation, ALLOCATIONS)
    if not callable(score) and score not in SCORES:
        raise unknown("score", score, SCORES)
    checkpoint = open_checkpoint(source)
    if not checkpoint.is_folder and target.suffix != source.suffix:
        raise ValueError(f"--out of a {source.suffix} file is a file with that suffix: got {target}")
    check_out(source, target, folder=checkpoint.is_folder)
    if not checkpoint.is_folder:
        for path in _beside(target, checkpoint).values():
            check_out(source, path, folder=False)
    found = find_layers(checkpoint, choice)
    notes = (*found.notes, *_copies_left_dense(checkpoint, found.chosen))

    weights = LazyTensors({layer.name: layer.source for layer in found.chosen}, checkpoint.read)
    masks = masks_of(weights, ratio, score=score, allocation=allocation)
    report = report_of(found.chosen, masks, ratio)
    how = {
        "source": source.name, "ratio": ratio, "allocation": allocation, **asdict(choice),
        "score": getattr(score, "__name__", "a function") if callable(score) else score,
        "size": int(report["size"].sum()), "kept": int(report["kept"].sum()), "notes": list(notes),
    }  # fmt: skip
    with new_folder(target) if checkpoint.is_folder else new_files(target) as place:
        place = place if checkpoint.is_folder else place / target.name
        beside = _beside(place, checkpoint)
        write_like(checkpoint, place, found.chosen, masks, config=found.config)
        save_masks(beside["masks"], masks)  # these after the copies: the model may have been pruned before
        write_text(beside["csv"], report.to_csv(index=False))
        write_text(beside["json"], json.dumps(how, indent=2) + "\n")
    return PrunedCheckpoint(
        target, _beside(target, checkpoint)["masks"], report, notes, _left_behind(checkpoint),
        sum(info.size for info in checkpoint.tensors.values()),
    )  # fmt: skip


def report_of(layers: tuple[Layer, ...], masks: PackedMasks, ratio: float) -> pd.DataFrame:
    """A row a layer. asked: the ratio asked for; got: the share of this layer that was removed; kept: entries left."""
    rows = []
    for layer in layers:
        kept, size = int(masks[layer.name].count_nonzero()), masks[layer.name].numel()
        dtype, got = str(layer.dtype).removeprefix("torch."), 1 - kept / size if size else 0.0
        rows.append((layer.name, layer.kind, "x".join(map(str, layer.shape)), dtype, size, ratio, got, kept))
    return pd.DataFrame(rows, columns=["name", "kind", "shape", "dtype", "size", "asked", "got", "kept"])


def _beside(out: Path, checkpoint: Checkpoint) -> dict[str, Path]:
    if checkpoint.is_folder:
        return {"masks": out / "masks.safetensors", "csv": out / "pruning.csv", "json": out / "pruning.json"}
    names = {"masks": "masks.safetensors", "csv": "pruning.csv", "json": "pruning.json"}
    return {what: out.with_name(f"{out.stem}.{name}") for what, name in names.items()}


def _copies_left_dense(checkpoint: Checkpoint, layers: tuple[Layer, ...]) -> list[str]:
    """A sentence for other state dicts of the same weights in a file of torch.save (a moving average): not pruned."""
    file = checkpoint.files[0]
    if checkpoint.is_folder or not isinstance(file, PickleFile):
        return []
    copies = [name for name, state in file.others().items() if any(layer.source in state for layer in layers)]
    if not copies:
        return []
    return [f"only {file.container!r} is pruned, not {listed(copies)} in the same file, which has these weights too"]


def _left_behind(checkpoint: Checkpoint) -> tuple[str, ...]:
    if not checkpoint.is_folder:
        return ()
    ours = {path.name for path in _beside(checkpoint.path, checkpoint).values()}  # of a pruning before: replaced
    return tuple(name for name in other_files(checkpoint.path) if name not in ours)
