"""What the Hugging Face Trainer wrote beside a checkpoint: trainer_state.json, read as plain JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twore.checkpoints import CheckpointError

FILE = "trainer_state.json"
CLOCKWORK = ("runtime", "per_second", "preparation_time", "compilation_time", "num_tokens")  # no scores
LOWER = ("loss", "perplexity", "wer", "cer", "ter", "mse", "mae", "rmse", "error")  # better when lower; common names


@dataclass(frozen=True)
class TrainerState:
    """The state at one checkpoint."""

    step: int  # optimizer updates
    epoch: float | None  # passes over the data, a fraction within one
    history: tuple[dict[str, Any], ...]  # log entries up to this step, each with its step

    @property
    def lr(self) -> float:
        """The last logged learning rate, NaN where none was logged."""
        return self._last("learning_rate")

    @property
    def train_loss(self) -> float:
        """The last logged training loss (a mean since the log entry before), NaN where none was logged."""
        return self._last("loss")

    @property
    def evaluation(self) -> dict[str, float]:
        """What was evaluated at exactly this step, by the Trainer's names (eval_loss, eval_accuracy, ...)."""
        found: dict[str, float] = {}
        for entry in self.history:
            if entry["step"] == self.step:
                found |= {name: value for name, value in entry.items() if _is_score(name, value)}
        return found

    def _last(self, name: str) -> float:
        values = [entry[name] for entry in self.history if isinstance(entry.get(name), (int, float))]
        return float(values[-1]) if values else math.nan


def read_state(folder: Path) -> TrainerState | None:
    """The state beside a checkpoint, None where there is none. CheckpointError for a file that is not one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        step, epoch = int(content["global_step"]), content.get("epoch")
        entries = [entry for entry in content.get("log_history") or [] if isinstance(entry.get("step"), (int, float))]
        return TrainerState(
            step, None if epoch is None else float(epoch), tuple(e for e in entries if e["step"] <= step)
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is truncated, or not the Trainer's: copy it again, or give a folder of the weights alone"
        ) from error


def metric_of(states: list[TrainerState], asked: str | None) -> tuple[str, float] | None:
    """(name, sign) of the evaluation that judges checkpoints: sign * value is higher for better ones; None for none.

    asked: a name as in the log; by default the first, in alphabetical order, that every evaluated checkpoint has and
    that is no loss, else eval_loss. ValueError for a name that no checkpoint has.
    """
    evaluated = [set(state.evaluation) for state in states if state.evaluation]
    common = sorted(set.intersection(*evaluated)) if evaluated else []
    if asked is not None:
        if asked not in common:
            there = f"there are {', '.join(common)}" if common else "nothing was evaluated at these steps"
            raise ValueError(f"no evaluation is called {asked!r} at every checkpoint: {there}")
        return asked, _sign(asked)
    higher = [name for name in common if _sign(name) > 0]
    name = higher[0] if higher else next(iter(sorted(common, key=lambda name: name != "eval_loss")), None)
    return None if name is None else (name, _sign(name))


def _sign(name: str) -> float:
    words = name.lower().removeprefix("eval_").split("_")
    return -1.0 if any(word in LOWER for word in words) else 1.0


def _is_score(name: str, value: Any) -> bool:
    return (
        name.startswith("eval_")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and not any(word in name for word in CLOCKWORK)
    )
