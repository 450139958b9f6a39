"""A run folder made by hand: the records of a study's results with chosen numbers and times, without computing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch

from twore.files import write_record, write_tensors
from twore.study import Store, Study, save_study
from twore.study.specs import Group

START = datetime(2026, 1, 1, tzinfo=UTC)


def provenance(seconds: float = 0.0, host: str = "here") -> dict:
    at = (START + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    return {"host": host, "seconds": 1.0, "finished_at": at, "commit": "abc"}


def cell(score: float = 90.0, **where: object) -> dict:
    numbers = {"score": score, "valid_score": float("nan"), "train_loss": 0.1, "density": 0.5, "revived": 0}
    return numbers | {"provenance": provenance(**where)}


def fill(study: Study, out: Path, keep: Callable[[Group], bool] = lambda group: True, *, every: float = 60.0) -> Store:
    """All dense runs, and the groups that `keep` wants: scores 1, 2, ...; a cell finished `every` so many seconds."""
    save_study(study, out / "study.yaml")
    names = ("random_distance", "random_divergence")
    spectrum = {f"{name}{part}": 0.1 for name in names for part in ("", "_stderr", "_noise")}
    store, count = Store(out), 0
    for trajectory in study.trajectories:
        scores = {"score": 50.0, "valid_score": 50.0}
        epochs = [
            {"epoch": e, "update": 3 * e, "lr": 0.1, "train_loss": 1 / e, "rate": 100.0 + count, "scores": scores}
            for e in range(1, study.dense.epochs + 1)
        ]
        where = provenance(host=out.name)
        store.put("trajectories", trajectory.key, {"initial": scores, "epochs": epochs, "provenance": where})
        write_record(store.data_record(trajectory.key), {"source": f"files of {out}", "train": 48})
        for epoch in trajectory.epochs:
            write_tensors(
                store.checkpoint(trajectory.key, epoch), {"w": torch.full((3,), float(epoch))}, {"epoch": epoch}
            )
            store.put("checkpoints", trajectory.checkpoint_key(epoch), spectrum | {"provenance": where})
        for group in trajectory.groups():
            for key in group.cell_keys.values():
                count += 1
                if keep(group):
                    store.put("cells", key, cell(float(count), seconds=every * count, host=out.name))
            if keep(group):
                store.put("probes", group.probe_key, {"prune_perturbation": 0.5, "provenance": where})
                rows = [{"pair": name, "model_similarity": 0.1, "agreement": 0.9} for name in ("0-1", "mean")]
                store.put("pairs", group.pairs_key, {"rows": rows, "provenance": where})
    return store


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder with its bytes and time: equal before and after means that nothing was touched."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }
