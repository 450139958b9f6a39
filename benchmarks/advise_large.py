"""`advise` on a large model: a synthetic checkpoint of 1.1 B parameters, 2.2 GB of bfloat16 in shards, two times.

    python benchmarks/advise_large.py                    # minutes to hours, by the machine: all spectra
    python benchmarks/advise_large.py --no-spectra       # everything but the spectra
    python benchmarks/advise_large.py --layers 1 --permutations 1    # one block: the same peak
    python benchmarks/advise_large.py --weightwatcher    # beside it, WeightWatcher on the same folder (slow)

It prints the peak of anonymous memory (RssAnon, looked at every 5 ms; Linux) of `advise` in a process of its
own, and its time. The aim is 1.5 GB whatever the number of layers. Shapes are those of TinyLlama-1.1B.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from twore.checkpoints import TensorInfo, write_safetensors

WIDTH, INNER, KEYS, VOCABULARY, LAYERS = 2048, 5632, 256, 32_000, 22  # TinyLlama-1.1B's config.json
AIM = 1.5  # GB of anonymous memory
PER_SHARD = 6  # blocks a file

CHILD = """
import json, sys, threading, time
from pathlib import Path
peak, running = 0, True
def anonymous():
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024
def watch():
    global peak
    while running:
        peak = max(peak, anonymous())
        time.sleep(0.005)
thread = threading.Thread(target=watch, daemon=True); thread.start()
start = time.monotonic()
folder, kind, cache, spectra, copies = sys.argv[1:]
if kind == "advise":
    from twore.advise import WeightOptions, advise
    options = WeightOptions(spectra=spectra == "True", permutations=None if copies == "None" else int(copies))
    advise(folder, cache=cache, weights=options, say=lambda line: print(line, file=sys.stderr))
else:
    import weightwatcher
    watcher = weightwatcher.WeightWatcher()
    for one in sorted(Path(folder).iterdir()):
        watcher.analyze(model=str(one), randomize=True)
running = False; thread.join()
print(json.dumps({"peak": peak / 1e9, "seconds": time.monotonic() - start}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS, help="Transformer blocks")
    parser.add_argument("--no-spectra", action="store_true")
    parser.add_argument("--permutations", type=int, help="random copies (default: by cost)")
    parser.add_argument("--weightwatcher", action="store_true", help="its analyze(randomize=True) on the same folder")
    parser.add_argument("--folder", type=Path, help="where to make the checkpoints (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place, "run")
        for step in (1, 2):
            size = make(folder / f"checkpoint-{1000 * step}", options.layers, seed=step)
        print(f"2 checkpoints of {size / 2e9:.2f} B parameters, {size / 1e9:.1f} GB each", flush=True)
        found = measure(folder, "advise", Path(place, "cache"), not options.no_spectra, options.permutations)
        spectra = "without spectra" if options.no_spectra else "all weights-only metrics"
        print(f"advise, {spectra}: peak {found['peak']:.2f} GB anonymous (aim {AIM}), {found['seconds']:.0f} s")
        if options.weightwatcher:
            other = measure(folder, "weightwatcher", Path(place, "cache"), True)
            ratio = other["seconds"] / found["seconds"]
            print(f"WeightWatcher: peak {other['peak']:.2f} GB, {other['seconds']:.0f} s, {ratio:.1f} times advise's")


def make(folder: Path, layers: int, *, seed: int) -> int:
    """A sharded checkpoint of random bfloat16 weights, one tensor in memory at a time; returns its bytes."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    shards = [[TensorInfo("model.embed_tokens.weight", torch.bfloat16, (VOCABULARY, WIDTH))]]
    for first in range(0, layers, PER_SHARD):
        shards.append([info for i in range(first, min(first + PER_SHARD, layers)) for info in block(i)])
    shards.append([TensorInfo("lm_head.weight", torch.bfloat16, (VOCABULARY, WIDTH))])
    weight_map, total = {}, 0
    for number, infos in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shapes = {info.name: info.shape for info in infos}
        write_safetensors(
            folder / name, infos,
            lambda tensor, shapes=shapes: torch.randn(shapes[tensor], generator=generator).mul_(0.02).bfloat16(),
        )  # fmt: skip
        weight_map |= dict.fromkeys(shapes, name)
        total += sum(info.nbytes for info in infos)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    state = {"global_step": 1000 * seed, "epoch": float(seed), "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return total


def block(number: int) -> list[TensorInfo]:
    """The linear layers of one Llama block, and its norms."""
    shapes = {
        "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (KEYS, WIDTH), "self_attn.v_proj": (KEYS, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
        "mlp.down_proj": (WIDTH, INNER), "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,),
    }  # fmt: skip
    return [TensorInfo(f"model.layers.{number}.{n}.weight", torch.bfloat16, s) for n, s in shapes.items()]


def measure(folder: Path, kind: str, cache: Path, spectra: bool, copies: int | None = None) -> dict[str, float]:
    """Peak anonymous memory (GB) and seconds of one process."""
    words = [sys.executable, "-c", CHILD, str(folder), kind, str(cache), str(spectra), str(copies)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"in all {time.monotonic() - started:.0f} s")
