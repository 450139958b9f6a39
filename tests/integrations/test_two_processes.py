"""Two processes (gloo): the masks are those of process 0, zeros are exact in both, and an error ends both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")

from tiny import build  # noqa: E402

from twore.integrations import MASKS_FILE  # noqa: E402
from twore.pruning import load_masks, make_masks, prunable_weights  # noqa: E402

HERE = Path(__file__).parent


def run_both(given: str, out: Path) -> list[dict]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, str(HERE / "two_processes.py"), given, str(out)],
        check=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [json.loads((out / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("given", ["ratio", "masks", "file"])
def test_both_hold_the_masks_of_the_first(given, tmp_path):
    both = run_both(given, tmp_path)
    assert [seen["error"] for seen in both] == ["", ""]
    assert [seen["revived"] for seen in both] == [[0] * 8] * 2
    assert both[0]["weights"] == both[1]["weights"]
    assert [seen["measured"] for seen in both] == [[0, 4, 8], []]
    expected = make_masks({n: w.detach() for n, w in prunable_weights(build("bert", seed=0)).items()}, 0.8)
    for file in ("masks-0.safetensors", "masks-1.safetensors", f"checkpoint-6/{MASKS_FILE}"):
        found = load_masks(tmp_path / file)
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], mask) for name, mask in expected.items())


@pytest.mark.slow
def test_a_missing_file_is_said_by_both(tmp_path):
    both = run_both("missing", tmp_path)
    assert [seen["error"] for seen in both] == [f"no mask file at {tmp_path / 'process-0.safetensors'}"] * 2
