"""A study of 100,000 cells: seconds and memory of its plan, its status, the scan of a resumed run, and its tables.

    python benchmarks/scale.py [--cells 100000] [--json benchmarks/results/scale.json]

The records are made up (a few numbers a cell, as many fields as a real one) and written to a temporary folder on the
disk of --folder (default: the system's), about 4 KB each; the task does nothing. Then each command runs in a process of
its own, as a person starts it. Its seconds are without the imports, its memory is the most it held above what it held
after them. A finished study is the longest scan, since every record is there.

    plan    counting cells and estimating hours and disk, as --dry-run prints them
    status  twore status
    scan    what a resumed run looks at before it starts its first job
    tables  reading every record with its checksum and writing all tables

Targets: plan, status and scan in under 10 s and 500 MB each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from common import positive, print_table, provenance, write_json
from memory import peak_bytes
from torch import nn

from twore.files import write_record
from twore.study import Store, Study, load_study, save_study
from twore.training import Numerics, Training

SECONDS, MEGABYTES = 10.0, 500.0  # targets: what this project asks of itself
CHECKPOINTS, RATIOS, SEEDS = 28, 30, 3  # of a dense run: 2,520 cells
SETTINGS = 8
COMMANDS = ("plan", "status", "scan", "tables")


@dataclass(frozen=True)
class NoTask:
    """A task whose model is one layer and which has no data."""

    score_label: ClassVar[str] = "score"
    setting_fields: ClassVar[tuple[str, ...]] = ("width",)
    width: int = 8

    def known_fingerprint(self) -> str | None:
        """The same for everybody."""
        return "none"

    def load(self, folder: Path | None, device: torch.device) -> Any:
        """There is nothing to load."""
        raise NotImplementedError("this task only has made-up results")

    def build(self) -> nn.Module:
        """One layer."""
        return nn.Linear(self.width, 2)


def make_study(cells: int) -> Study:
    """A study of at least `cells` cells: settings x dense seeds x checkpoints x ratios x fine-tune seeds."""
    dense_seeds = -(-cells // (SETTINGS * CHECKPOINTS * RATIOS * SEEDS))
    return Study(
        task=NoTask(),
        name="scale",
        dense=Training(epochs=CHECKPOINTS, drops=(10, 20)),
        finetune=Training(epochs=4, drops=()),
        numerics=Numerics(device="cpu", precision="float32"),
        checkpoints=tuple(range(1, 1 + CHECKPOINTS)),
        ratios=tuple(round(0.02 + 0.03 * i, 2) for i in range(RATIOS)),
        dense_seeds=tuple(range(dense_seeds)),
        finetune_seeds=tuple(range(SEEDS)),
        settings=tuple({"task.width": 8 * (1 + i)} for i in range(SETTINGS)),
        data_fingerprint="none",
    )


def fill(study: Study, out: Path) -> None:
    """Every record of a finished study. Nothing is flushed to the disk: it would take an hour and change no reading."""
    os.fsync = lambda _descriptor: None
    store = Store(out)
    where = {"host": "node-17", "seconds": 12.345, "finished_at": "2026-01-01T00:00:00+00:00", "commit": "0123456789ab"}
    scores = {"valid_score": 91.2, "score": 90.8}
    metrics = {f"metric_{i}": 0.123456789 * i for i in range(30)}
    count = 0
    for trajectory in study.trajectories:
        epochs = [
            {"epoch": e, "update": 100 * e, "lr": 0.1, "train_loss": 1 / e, "rate": 5000.0, "scores": scores}
            for e in range(1, 1 + CHECKPOINTS)
        ]
        store.put("trajectories", trajectory.key, {"initial": scores, "epochs": epochs, "provenance": where})
        write_record(store.data_record(trajectory.key), {"source": "none", "train": 48})
        for epoch in trajectory.epochs:
            store.checkpoint(trajectory.key, epoch).touch()
            store.put("checkpoints", trajectory.checkpoint_key(epoch), metrics | {"provenance": where})
        for group in trajectory.groups():
            for key in group.cell_keys.values():
                count += 1
                numbers = {
                    "valid_score": 50 + count % 977 / 31,
                    "score": 50 + count % 991 / 37,
                    "train_loss": 1 / count,
                }
                store.put("cells", key, numbers | {"density": 1 - group.ratio, "revived": 0, "provenance": where})
            probe = {f"probe_{i}": count / (7 + i) for i in range(8)}
            store.put("probes", group.probe_key, probe | {"provenance": where})
            rows = [
                {"pair": pair, "model_similarity": 1 / count, "agreement": 0.9}
                for pair in ("0-1", "0-2", "1-2", "mean")
            ]
            store.put("pairs", group.pairs_key, {"rows": rows, "provenance": where})


def plan(out: Path) -> int:
    """Counts and the estimate."""
    from twore.recipes.command import estimate_in_words, plan_in_words

    study = load_study(out / "study.yaml")
    plan_in_words("plan", study)
    estimate_in_words(study, workers=2, shard=None, calibrate=False, data=None)
    return study_cells(study)


def status(out: Path) -> int:
    """What `twore status` reads."""
    from twore.study.status import in_words, read_status

    found = read_status(out)
    in_words(found)
    return found.cells.done


def scan(out: Path) -> int:
    """A resumed run up to its first job."""
    from twore.study.claims import Claims
    from twore.study.schedule import Schedule

    store = Store(out)
    with Claims(store.claims) as claims:
        schedule = Schedule(load_study(out / "study.yaml"), store, claims)
        assert schedule.next() is None
        return schedule.done


def tables(out: Path) -> int:
    """All tables, written."""
    from twore.study.tables import read_results

    results = read_results(load_study(out / "study.yaml"), Store(out))
    results.write(out)
    return len(results.cells)


def study_cells(study: Study) -> int:
    """Cells of a study without settings in common."""
    axes = (study.settings, study.dense_seeds, study.checkpoints, study.ratios, study.finetune_seeds)
    return int(torch.tensor([len(axis) for axis in axes]).prod())


def main() -> None:
    """Make the store, run each command, print and keep the numbers."""
    options = _arguments()
    if options.command:
        _one(globals()[options.command], options.folder)
        return
    about = provenance()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        out = Path(folder)
        study = make_study(options.cells)
        save_study(study, out / "study.yaml")
        begun = time.monotonic()
        subprocess.run([sys.executable, __file__, "--command", "fill", "--folder", folder], check=True)
        print(f"{study_cells(study):,} cells made up in {time.monotonic() - begun:.0f} s\n", flush=True)
        found = {}
        for name in COMMANDS:
            command = [sys.executable, __file__, "--command", name, "--folder", folder]
            found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            assert found[name]["cells"] == study_cells(study), f"{name} saw {found[name]['cells']} cells"
            print(f"{name:8}{found[name]['seconds']:7.1f} s", flush=True)
        sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.csv"))}
    print()
    rows = []
    for name, one in found.items():
        met = one["seconds"] < SECONDS and one["megabytes"] < MEGABYTES
        verdict = "" if name == "tables" else f"{SECONDS:.0f} s, {MEGABYTES:.0f} MB {'met' if met else 'MISSED'}"
        numbers = [f"{one['seconds']:.1f}", f"{one['cpu_seconds']:.1f}", f"{one['megabytes']:.0f}"]
        rows.append([name, *numbers, f"{one['imports']['megabytes']:.0f}", verdict])
    print_table(["command", "seconds", "CPU seconds", "MB", "MB after imports", "target"], rows)
    if options.json:
        settings = {"cells": study_cells(study), "dense_runs": len(study.trajectories)}
        result = {"benchmark": "scale", "provenance": about, "settings": settings, "tables_bytes": sizes}
        write_json(options.json, result | {"commands": found})


def _one(command: Callable[[Path], int], out: Path) -> None:
    """In a process of its own: one command, its cost as JSON on stdout."""
    if command is fill:
        fill(load_study(out / "study.yaml"), out)  # type: ignore[call-arg]
        return
    import pandas  # noqa: F401  what every command has imported when it begins

    import twore.recipes.command
    import twore.study.status  # noqa: F401

    imports = {"megabytes": peak_bytes() / 1e6, "seconds": time.process_time()}
    begun, used = time.monotonic(), time.process_time()
    cells = command(out)
    seconds, cpu_seconds = time.monotonic() - begun, time.process_time() - used
    record = {"seconds": seconds, "cpu_seconds": cpu_seconds, "megabytes": peak_bytes() / 1e6 - imports["megabytes"]}
    print(json.dumps(record | {"cells": cells, "imports": imports}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=positive, default=100_000, help="at least so many cells")
    parser.add_argument("--folder", type=Path, help="where to make the temporary run folder")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    parser.add_argument("--command", choices=("fill", *COMMANDS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
