"""Small runs on disk for tests: checkpoint-* folders of transformers models, folders of state dicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

STEPS = (100, 900, 1000)


def hf_run(
    folder: Path, build: Callable[[], nn.Module], steps: Sequence[int] = STEPS, *, shard: str | None = None,
    state: bool = True,
) -> Path:  # fmt: skip
    """checkpoint-* folders of one model whose weights move on, as the Trainer writes them."""
    model = build()
    for number, step in enumerate(steps, 1):
        move(model, number)
        place = folder / f"checkpoint-{step}"
        model.save_pretrained(place, **({"max_shard_size": shard} if shard else {}))
        torch.save({"state": {0: torch.ones(3)}}, place / "optimizer.pt")
        torch.save({"last": step}, place / "scheduler.pt")
        (place / "training_args.bin").write_bytes(b"not for us")
        if state:
            log = [log_entry(s) for s in steps[:number]]
            content = {"global_step": step, "epoch": step / 100, "log_history": [e for pair in log for e in pair]}
            (place / "trainer_state.json").write_text(json.dumps(content))
    return folder


def log_entry(step: int) -> tuple[dict, dict]:
    """What the Trainer logs at a step, and what it evaluates: accuracy is best at step 900."""
    rate = 0.1 if step < 950 else 0.01
    accuracy = 0.9 if step == 900 else 0.5
    return (
        {"step": step, "epoch": step / 100, "learning_rate": rate, "loss": 1 / step},
        {"step": step, "epoch": step / 100, "eval_loss": 0.3, "eval_accuracy": accuracy, "eval_runtime": 5.0},
    )


def torch_run(folder: Path, model: nn.Module, names: Sequence[str]) -> Path:
    """State dicts of torch.save under these names, in this order of training."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, 1):
        move(model, number)
        torch.save(model.state_dict(), folder / name)
    return folder


def net(width: int = 24) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 10))


@torch.no_grad()
def move(model: nn.Module, seed: int) -> None:
    """Another point of training."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file and folder below: a digest of its bytes, and when it was last written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        found[str(path.relative_to(folder))] = (digest, path.stat().st_mtime_ns)
    return found
