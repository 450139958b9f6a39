"""A short pilot beside a finished study: the same dense runs and checkpoints, each cell fine-tuned for a fraction.

    short = short_study(load_study(full / "study.yaml"), {"share": 0.25, "lr": 0.06})
    share_dense_runs(full, out)                  # nothing is trained again
    run_study(short, out)

Its results are read beside the full study's by twore.analysis.short_pilots. `twore short` does all of this.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twore.study.config import ConfigError
from twore.study.specs import Study, with_overrides
from twore.study.store import Store

DENSE = ("trajectories", "checkpoints")  # folders of a store that hold what dense runs leave


def short_study(study: Study, fields: Mapping[str, Any], *, seeds: int = 1) -> Study:
    """The study with other fields of `finetune`, one fine-tuning for every dense run, and so many fine-tune seeds.

    The seeds are those after the study's own, so that the cells it is judged on have no part in the choice: with an
    equal seed a short cell would see the batches that the long one begins with.
    Whatever settings say about fine-tuning is left out, and settings that differ in nothing else become one: the short
    cells belong to dense runs. Pair metrics are measured only with two seeds or more. ConfigError for a field that does
    not exist, or a value that it does not take.
    """
    given = [study.finetune_seeds, *(own["finetune_seeds"] for own in study.settings if "finetune_seeds" in own)]
    first = 1 + max(int(seed) for own in given for seed in own)
    settings: list[dict[str, Any]] = []
    for overrides in study.settings:
        own = {path: value for path, value in overrides.items() if not path.startswith(("finetune.", "finetune_seeds"))}
        if own not in settings and not _covered(own, overrides, settings):
            settings.append(own)
    try:
        changed = with_overrides(
            replace(study, settings=({},)), {f"finetune.{name}": value for name, value in fields.items()}
        )
        return replace(
            changed, name=f"{study.name} short", settings=tuple(settings), landscape=False, keep_weights=False,
            finetune_seeds=tuple(range(first, first + seeds)),
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(str(error)) from error


def share_dense_runs(source: Path, out: Path) -> int:
    """Put the dense runs of a run folder into another one's store; returns how many files were new there.

    Files are linked where the file system can, else copied: a store never changes a file in place. What is there stays.
    """
    count = 0
    for kind in DENSE:
        root = Store(source).root / kind
        for path in sorted(root.rglob("*")) if root.exists() else ():
            target = Store(out).root / kind / path.relative_to(root)
            if path.is_file() and not path.name.startswith(".") and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _same_file(path, target)
                count += 1
    return count


def _covered(own: Mapping[str, Any], overrides: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting that differed in fine-tuning alone is among the others, but for which of its seeds are run."""
    bare = {path: value for path, value in own.items() if path != "dense_seeds"}
    others = [{path: value for path, value in other.items() if path != "dense_seeds"} for other in settings]
    return len(own) < len(overrides) and bare in others


def _same_file(path: Path, target: Path) -> None:
    with suppress(OSError):
        os.link(path, target)
        return
    shutil.copy2(path, target)
