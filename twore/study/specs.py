"""What a study is: a frozen value that expands into trajectories, checkpoints, cells and pairs, each with its key.

Study -> settings (field overrides) x dense seeds -> Trajectory -> checkpoints x ratios -> Group (the fine-tune seeds of
one cell, and their pairs). Nothing here touches data or computes.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from twore.pruning.spec import Pruning
from twore.study.identity import KeysOf, key_of
from twore.tasks.base import Task
from twore.training import REPORT_DENSE, REPORT_FINETUNE, Numerics, Training

MEASURED = 2  # raise it when more, or other things, are measured of a checkpoint: old records are then made again
PROBED = 2  # the same for probes
COMMON = ("task", "name", "settings", "data_fingerprint", "keep_weights")  # the same in all settings of a study
AXES = ("checkpoints", "extra_checkpoints", "ratios", "dense_seeds", "finetune_seeds")  # have columns of their own


@dataclass(frozen=True)
class Study:
    """A training-for-pruning study: a grid of settings x dense seeds x checkpoints x ratios x fine-tune seeds."""

    task: Task
    """The base task; settings change fields of it."""
    name: str = "study"
    """A label for people; not part of any result's identity."""
    dense: Training = REPORT_DENSE
    """The dense training run."""
    finetune: Training = REPORT_FINETUNE
    """Fine-tuning after pruning."""
    pruning: Pruning = Pruning()
    """How checkpoints are pruned."""
    numerics: Numerics = Numerics()
    """Device kind and floating-point behaviour."""
    checkpoints: tuple[int, ...] = tuple(range(10, 161, 10))
    """Epochs whose checkpoints are pruned; 0 is the initialisation."""
    extra_checkpoints: tuple[int, ...] = ()
    """Epochs that are only measured (checkpoints.csv), not pruned."""
    ratios: tuple[float, ...] = (0.2, 0.6, 0.8, 0.86, 0.9, 0.92, 0.93, 0.94, 0.95)
    """Fractions of prunable weights removed, each in [0, 1)."""
    dense_seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation and data order of the dense runs."""
    finetune_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of data order and augmentation in fine-tuning."""
    settings: tuple[dict[str, Any], ...] = field(default_factory=lambda: ({},))
    """Settings as overrides of dotted fields, e.g. {task.depth: 38}; {} is the base."""
    permutations: int = 10
    """Permutations behind random_distance."""
    probe_batches: int = 4
    """Training batches on which pruned checkpoints are scored before fine-tuning (probes.csv); 0 means no probes."""
    landscape: bool = False
    """Also measure CKA and linear mode connectivity of each pair of fine-tune seeds (pairs.csv)."""
    data_fingerprint: str = "auto"
    """Fingerprint of the data set; auto: taken when the study is created."""
    keep_weights: bool = False
    """Keep the fine-tuned weights and masks of every cell."""
    origin: str = field(default="", metadata={"since": "0.1.0"})
    """What checkpoints that were trained elsewhere are, a hash of their contents; empty: they are trained here."""

    def __post_init__(self) -> None:
        _check_axis(
            "checkpoints",
            self.checkpoints,
            lambda e: 0 <= e <= self.dense.epochs,
            f"epochs in [0, {self.dense.epochs}]",
        )
        _check_axis("ratios", self.ratios, lambda r: 0 <= r < 1, "fractions removed, in [0, 1)")
        _check_axis("dense_seeds", self.dense_seeds, lambda s: s >= 0, "0 or more")
        _check_axis("finetune_seeds", self.finetune_seeds, lambda s: s >= 0, "0 or more")
        late = [e for e in self.extra_checkpoints if not 0 <= e <= self.dense.epochs]
        if late:
            raise ValueError(f"extra_checkpoints are epochs in [0, {self.dense.epochs}]: got {late}")
        if self.probe_batches < 0:
            raise ValueError(f"probe_batches is 0 or more: got {self.probe_batches}")
        if self.permutations < 1:
            raise ValueError(f"permutations is at least 1: got {self.permutations}")
        if self.pruning.schedule != "one_shot" and self.finetune.epochs == 0:
            raise ValueError(f"the {self.pruning.schedule} schedule prunes while it fine-tunes: finetune.epochs is 0")
        if self.dense.clock != "restart":
            raise ValueError("dense.clock has no use: only fine-tuning has a checkpoint to continue from")
        if self.dense.share != 1:
            raise ValueError("dense.share has no use: an epoch of a dense run is a whole pass over its data")
        if self.finetune.ema:
            raise ValueError("finetune.ema has no use: moving averages are kept beside the checkpoints of dense runs")
        if self.numerics.dense_stack > 1 and not getattr(self.task, "equal_batches", True):
            raise ValueError(
                f"dense runs of {type(self.task).__name__} cannot be trained in one stack, since the shapes of its "
                "batches depend on the seed: use numerics.dense_stack 1 (numerics.stack, for cells, is free)"
            )
        if not self.settings:
            raise ValueError("settings is empty: use [{}] for the base setting alone")
        for overrides in self.settings:
            with_overrides(replace(self, settings=({},)), overrides) if overrides else None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the setting columns in the tables: the task's own, then whatever else the settings change."""
        return tuple(self._paths.values())

    @cached_property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """All dense runs, each once, in the order of the settings."""
        found: dict[tuple[str, str], Trajectory] = {}
        for overrides in self.settings:
            study = with_overrides(replace(self, settings=({},)), overrides)
            columns = {name: _field_at(study, path) for path, name in self._paths.items()}
            for seed in study.dense_seeds:
                trajectory = Trajectory(study, seed, columns)
                first = found.setdefault((trajectory.key, str(columns)), trajectory)
                if any(getattr(first.study, axis) != getattr(study, axis) for axis in AXES):
                    raise ValueError(f"two settings differ in their {' or '.join(AXES)} alone: make them one setting")
        return tuple(found.values())

    @cached_property
    def _paths(self) -> dict[str, str]:
        named = [f"task.{name}" for name in self.task.setting_fields]
        swept = [path for overrides in self.settings for path in overrides if path not in AXES]
        return {path: column_name(path) for path in dict.fromkeys(named + swept)}

    def __hash__(self) -> int:  # settings are mappings, which have no hash of their own
        return hash(key_of("study", self))


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One dense run: a setting and a dense seed. `study` has the setting applied; `columns` are for the tables."""

    study: Study
    seed: int
    columns: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Identity of the dense run; which epochs are kept does not change it."""
        s = self.study
        value = {
            "task": s.task,
            "data": s.data_fingerprint,
            "dense": s.dense,
            "seed": self.seed,
            "numerics": replace(s.numerics, stack=1),  # of cells: studies of any such width share dense runs
        }
        return key_of("trajectory", value | ({"origin": s.origin} if s.origin else {}))

    @property
    def epochs(self) -> list[int]:
        """Epochs whose checkpoints are kept, rising."""
        return sorted({*self.study.checkpoints, *self.study.extra_checkpoints})

    @property
    def setting(self) -> str:
        """The setting in words, without the seed."""
        return " ".join(
            f"{name}={value:.12g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.columns.items()
        )

    def checkpoint_key(self, epoch: int) -> str:
        """Identity of a checkpoint's metrics."""
        before = [e for e in self.epochs if e < epoch]  # distance_from_previous is to the last of them
        value = {
            "trajectory": self.key,
            "epoch": epoch,
            "before": before[-1] if before else -1,
            "permutations": self.study.permutations,
            "measured": MEASURED,
        }
        return key_of("checkpoint", value)

    @cached_property
    def cell_keys(self) -> KeysOf:
        """(epoch, ratio, fine-tune seed) -> identity of a cell."""
        shared = {"trajectory": self.key, "pruning": self.study.pruning, "finetune": self.study.finetune}
        stack = self.study.numerics.stack
        shared |= {} if stack == 1 else {"stack": stack}
        return KeysOf("cell", shared, ("epoch", "ratio", "seed"))

    @cached_property
    def probe_keys(self) -> KeysOf:
        """(epoch, epoch pruned before it or -1, ratio) -> identity of what is measured before fine-tuning."""
        shared = {
            "trajectory": self.key,
            "pruning": self.study.pruning,
            "batches": self.study.probe_batches,
            "finetune": self.study.finetune,  # what its cost is a share of
            "measured": PROBED,
        }
        return KeysOf("probe", shared, ("epoch", "before", "ratio"))

    def groups(self) -> Iterator[Group]:
        """Every (epoch, ratio) of this trajectory."""
        for epoch in sorted(self.study.checkpoints):
            for ratio in sorted(self.study.ratios):
                yield Group(self, epoch, ratio)


@dataclass(frozen=True, eq=False)
class Group:
    """The cells of one (trajectory, epoch, ratio): one a fine-tune seed; computed together, with their pairs."""

    trajectory: Trajectory
    epoch: int
    ratio: float

    def cell_key(self, seed: int) -> str:
        """Identity of one cell."""
        return self.trajectory.cell_keys(self.epoch, float(self.ratio), seed)

    @cached_property
    def cell_keys(self) -> dict[int, str]:
        """Fine-tune seed -> key."""
        return {seed: self.cell_key(seed) for seed in self.trajectory.study.finetune_seeds}

    @cached_property
    def probe_key(self) -> str:
        """Identity of what is measured before fine-tuning."""
        earlier = [epoch for epoch in self.trajectory.study.checkpoints if epoch < self.epoch]
        return self.trajectory.probe_keys(
            self.epoch, max(earlier, default=-1), float(self.ratio)
        )  # mask_distance: to it

    @cached_property
    def pairs_key(self) -> str:
        """Identity of the pair metrics of all fine-tune seeds."""
        study, cells = self.trajectory.study, list(self.cell_keys.values())
        version = getattr(study.task, "plain_version", 1)
        marks = ["landscape"] * study.landscape + [f"plain {version}"] * (version > 1)
        return key_of("pairs", [*cells, *marks])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of fine-tune seeds."""
        return list(combinations(self.trajectory.study.finetune_seeds, 2))


def with_overrides(study: Study, overrides: Mapping[str, Any]) -> Study:
    """The study with dotted fields replaced, e.g. {"task.depth": 38, "checkpoints": [4, 8]}.

    ValueError for a field that does not exist, cannot differ between settings, or does not take such a value.
    """
    own: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for path, value in overrides.items():
        before, value = _field_at(study, path), tuple(value) if isinstance(value, list) else value
        _check_override(path, before, value)
        head, _, tail = path.rpartition(".")
        if head:
            groups.setdefault(head, {})[tail] = value
        else:
            own[tail] = value
    parts = {head: replace(getattr(study, head), **values) for head, values in groups.items()}
    return replace(study, **parts, **own)  # all at once: checkpoints may fit the new epochs only


def column_name(path: str) -> str:
    """The table column of a dotted field: task.depth -> depth, finetune.lr -> finetune_lr."""
    return path.removeprefix("task.").replace(".", "_")


def _field_at(study: Study, path: str) -> Any:
    value: Any = study
    for part in path.split("."):
        names = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
        if part not in names:
            close = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {path.replace(part, close[0])}?" if close else f"there are {', '.join(names)}"
            raise ValueError(f"a setting names the field {path}, which does not exist: {hint}")
        value = getattr(value, part)
    return value


def _check_override(path: str, before: Any, value: Any) -> None:
    if path in COMMON or path.startswith("numerics.") or path.count(".") > 1 or dataclasses.is_dataclass(before):
        raise ValueError(f"{path} cannot differ between the settings of a study: run another study for it")
    if path == "task.dataset":
        raise ValueError("a study has one data set: run another study, with its own --out, for another task.dataset")
    accepted = {float: (int, float), type(None): (int, float, str, type(None))}.get(type(before), (type(before),))
    if not isinstance(value, accepted) or (isinstance(value, bool) and not isinstance(before, bool)):
        raise ValueError(f"a setting gives {path} the value {value!r}: it takes values like {before!r}")


def _check_axis(name: str, values: tuple, valid: Any, words: str) -> None:
    wrong = [value for value in values if not valid(value)]
    if wrong:
        raise ValueError(f"{name} are {words}: got {wrong}")
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name} needs at least one value and each once: got {list(values)}")
