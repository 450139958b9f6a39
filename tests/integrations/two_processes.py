"""What each of two processes does: fine-tune a pruned model together, and write down what it saw. Run by torchrun:
python -m torch.distributed.run --standalone --nproc-per-node 2 two_processes.py OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from tiny import FAMILIES, Witness, build, trainer
from transformers import PrinterCallback

from twore.integrations import TworeCallback
from twore.pruning import make_masks, prunable_weights, save_masks

CASES = ("ratio", "masks", "file", "missing", *FAMILIES)


def fine_tune(given: str, out: Path, rank: int) -> dict:
    """The processes differ in what they are given: other weights, other masks, a file that only the first can read.

    A family's name: its model, pruned to a ratio, for as many updates as with one process.
    """
    if given in FAMILIES:
        callback = TworeCallback(ratio=0.8, exclude=FAMILIES[given].exclude)
        return trained(callback, given, out, rank, max_steps=50)
    masks = make_masks({n: w.detach() for n, w in prunable_weights(build("bert", seed=rank)).items()}, 0.8)
    file = out / f"process-{rank}.safetensors"
    if given == "file" and rank == 0:
        save_masks(file, masks)
    options = {"ratio": {"ratio": 0.8}, "masks": {"masks": masks}}.get(given, {"masks": file})
    callback = TworeCallback(**options, metrics_every=4, save_at=6)
    return trained(callback, "bert", out, rank, max_steps=8, max_grad_norm=0.01, logging_steps=4)


def trained(callback: TworeCallback, name: str, out: Path, rank: int, **arguments: float) -> dict:
    """What this process saw of a training."""
    witness = Witness(callback)
    made = trainer(name, out, callback, witness, seed=rank, ddp_backend="gloo", **arguments)
    made.remove_callback(PrinterCallback)
    try:
        made.train()
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    save_masks(out / f"masks-{rank}.safetensors", callback.masks)
    return {
        "error": "",
        "revived": witness.revived,
        "weights": [float(p.double().sum()) for p in made.model.parameters()],
        "measured": [entry["step"] for entry in made.state.log_history if "random_distance" in entry],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    this = int(os.environ["RANK"])
    for case in CASES:
        folder = Path(sys.argv[1]) / case
        folder.mkdir(exist_ok=True)
        (folder / f"seen-{this}.json").write_text(json.dumps(fine_tune(case, folder, this)))
