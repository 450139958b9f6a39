"""Whether checkpoints are of one training run: what their logs say, and where they lie.

The Trainer's log at a checkpoint begins with the log at every checkpoint before it. So two that logged different
numbers at one step are of two runs (two seeds, or a training begun again in the same folder). Without logs the folders
tell: two folders whose steps interleave, with two checkpoints or more each, are two runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twore.advise.trainer_state import CLOCKWORK
from twore.checkpoints import CheckpointError

if TYPE_CHECKING:
    from twore.advise.finding import Found

PLANNED = ("step", "epoch", "learning_rate")  # equal in two runs of one recipe: no sign of one run


def refuse_two_logs(found: Sequence[Found]) -> None:
    """CheckpointError when two checkpoints logged different numbers at one step. found: in any order."""
    known: dict[tuple[Any, str], tuple[str, Path]] = {}
    for one in sorted((one for one in found if one.state), key=lambda one: one.step or 0):
        for (step, name), value in _logged(one).items():
            before, other = known.setdefault((step, name), (value, one.path))
            if before != value:
                raise CheckpointError(
                    f"{other} and {one.path} are of two runs, since their logs differ at step {step:g} "
                    f"({name} {before} and {value}): {_way_out(other, one.path)}"
                )


def refuse_interleaved(found: Sequence[Found]) -> None:
    """CheckpointError when two folders hold parts of one stretch of training and no log joins them. found: placed."""
    folders: dict[Path, list[Found]] = {}
    for one in found:
        folders.setdefault(one.path.absolute().parent, []).append(one)
    several = [ones for ones in folders.values() if len(ones) > 1]
    for number, ours in enumerate(several):
        for others in several[number + 1 :]:
            first, second = ([one.position for one in ones] for ones in (ours, others))
            apart = max(first) < min(second) or max(second) < min(first)
            if not apart and not _joined(ours, others):
                a, b = ours[0].path, others[0].path
                raise CheckpointError(
                    f"the checkpoints in {a.parent} and in {b.parent} interleave and nothing says that they are of one "
                    f"run: {_way_out(a, b)}; or put those of one run into one folder"
                )


def _logged(one: Found) -> dict[tuple[Any, str], str]:
    """(step, name) -> the number as it was first logged there; times are none of training's."""
    found: dict[tuple[Any, str], str] = {}
    for entry in one.state.history if one.state else ():
        for name, value in entry.items():
            if name != "step" and isinstance(value, (int, float)) and not any(word in name for word in CLOCKWORK):
                found.setdefault((entry["step"], name), json.dumps(float(value)))  # NaN equals NaN
    return found


def _joined(ours: Sequence[Found], others: Sequence[Found]) -> bool:
    """Whether some of ours logged the same number as some of the others, one that a recipe does not fix."""
    first, second = ({item for one in ones for item in _logged(one).items()} for ones in (ours, others))
    return any(name not in PLANNED for (_, name), _ in first & second)


def _way_out(a: Path, b: Path) -> str:
    if a.parent == b.parent:
        return "name the checkpoints of one of them"
    return f"name the folder of one of them alone, {a.parent} or {b.parent}"
