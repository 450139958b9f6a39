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

from tiny import FAMILIES, build  # noqa: E402

from twore.integrations import MASKS_FILE  # noqa: E402
from twore.pruning import load_masks, make_masks, prunable_weights  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes wrote, a folder a case; torch is imported once for all cases."""
    folder = tmp_path_factory.mktemp("two")
    script = str(Path(__file__).with_name("two_processes.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, script, str(folder)], check=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def seen(folder: Path) -> list[dict]:
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("given", ["ratio", "masks", "file"])
def test_both_hold_the_masks_of_the_first(given, out):
    both = seen(out / given)
    assert [process["error"] for process in both] == ["", ""]
    assert [process["revived"] for process in both] == [[0] * 8] * 2
    assert both[0]["weights"] == both[1]["weights"]
    assert [process["measured"] for process in both] == [[0, 4, 8], []]
    expected = make_masks({n: w.detach() for n, w in prunable_weights(build("bert", seed=0)).items()}, 0.8)
    for file in ("masks-0.safetensors", "masks-1.safetensors", f"checkpoint-6/{MASKS_FILE}"):
        found = load_masks(out / given / file)
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], mask) for name, mask in expected.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_fifty_updates_of_every_family(name, out):
    """As test_zeros_stay_zero with one process: AdamW, weight decay, accumulation, clipping; zero after each update."""
    both = seen(out / name)
    assert [process["error"] for process in both] == ["", ""]
    assert [process["revived"] for process in both] == [[0] * 50] * 2
    assert both[0]["weights"] == both[1]["weights"]
    first, second = (load_masks(out / name / f"masks-{rank}.safetensors") for rank in (0, 1))
    weights = prunable_weights(build(name, seed=0), exclude=FAMILIES[name].exclude)
    expected = make_masks({n: w.detach() for n, w in weights.items()}, 0.8)
    assert all(torch.equal(first[n], mask) and torch.equal(second[n], mask) for n, mask in expected.items())


def test_a_missing_file_is_said_by_both(out):
    both = seen(out / "missing")
    assert [process["error"] for process in both] == [
        f"no mask file at {out / 'missing' / 'process-0.safetensors'}"
    ] * 2
