"""Weights alone hold one matrix in memory, and little beside it: what decides whether a large model fits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twore.checkpoints import TensorInfo, write_safetensors

ROWS, COLUMNS = 32_768, 512  # 16.8 M entries, 34 MB of bfloat16: a tall one, whose eigenvalues cost little
BYTES_AN_ENTRY = 15  # above an idle process: two checkpoints of weights, ranks and masks take 8, blocks the rest

CHILD = """
import sys, threading, time
from pathlib import Path
from twore.advise import WeightOptions, advise
def anonymous():
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024
peak, running = 0, True
def watch():
    global peak
    while running:
        peak = max(peak, anonymous())
        time.sleep(0.002)
folder, cache, small = sys.argv[1:]
options = WeightOptions(permutations=1)
advise(small, ratios=(0.5, 0.9), cache=cache, weights=options)  # all that is loaded once
idle = anonymous()
thread = threading.Thread(target=watch, daemon=True); thread.start()
advise(folder, ratios=(0.5, 0.9), cache=cache, weights=options)
running = False; thread.join()
print(peak - idle)
"""


def run_of(folder: Path, shape: tuple[int, int]) -> Path:
    folder.mkdir()
    for step in (1, 2):
        generator = torch.Generator().manual_seed(step)
        info = TensorInfo("fc.weight", torch.bfloat16, shape)
        write_safetensors(
            folder / f"net-{step}.safetensors",
            [info],
            lambda name, g=generator: torch.randn(shape, generator=g).bfloat16(),
        )
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="anonymous memory is read from /proc")
def test_memory_is_a_few_bytes_an_entry_of_the_largest_matrix(tmp_path: Path) -> None:
    large, small = run_of(tmp_path / "large", (ROWS, COLUMNS)), run_of(tmp_path / "small", (64, 32))
    words = [sys.executable, "-c", CHILD, str(large), str(tmp_path / "cache"), str(small)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    used = int(done.stdout.splitlines()[-1])
    assert used < BYTES_AN_ENTRY * ROWS * COLUMNS, f"{used / (ROWS * COLUMNS):.1f} bytes an entry"
