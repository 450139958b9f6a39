"""`advise` on a large model: a synthetic checkpoint of 1.1 B parameters, 2.2 GB of bfloat16 in shards, two times.

    python benchmarks/advise_large.py                    # minutes to hours, by the machine: all spectra
    python benchmarks/advise_large.py --no-spectra       # everything but the spectra
    python benchmarks/advise_large.py --layers 1 --permutations 1    # one block: the same peak
    python benchmarks/advise_large.py --weightwatcher    # beside it, WeightWatcher on the same folder (slow)
    python benchmarks/advise_large.py --divide 16 --layers 1 --weightwatcher    # a trial: every width by 16

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
from dataclasses import dataclass
from pathlib import Path

import torch
from common import positive, provenance, write_json

from twore.checkpoints import TensorInfo, write_safetensors

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
folder, kind, cache, spectra, copies = sys.argv[1:]
if kind == "advise":
    from twore.advise import WeightOptions, advise
else:
    from twore.metrics.weightwatcher_engine import contained
    with contained():
        pass  # imported, which takes seconds
thread = threading.Thread(target=watch, daemon=True); thread.start()
start, used = time.monotonic(), time.process_time()
layers = None
if kind == "advise":
    options = WeightOptions(spectra=spectra == "True", permutations=None if copies == "None" else int(copies))
    found = advise(folder, cache=cache, weights=options, say=lambda line: print(line, file=sys.stderr))
else:
    with contained() as weightwatcher:
        for one in sorted(Path(folder).iterdir()):
            layers = len(weightwatcher.WeightWatcher().analyze(model=str(one), randomize=True))
seconds, cpu = time.monotonic() - start, time.process_time() - used
running = False; thread.join()
print(json.dumps({"peak": peak / 1e9, "seconds": seconds, "cpu_seconds": cpu, "layers": layers}))
"""


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; the defaults are TinyLlama-1.1B's config.json."""

    width: int = 2048
    inner: int = 5632
    keys: int = 256
    vocabulary: int = 32_000
    layers: int = 22

    def divided(self, by: int) -> Shape:
        """Every width and the vocabulary, by `by`."""
        return Shape(self.width // by, self.inner // by, self.keys // by, self.vocabulary // by, self.layers)

    def tables(self) -> list[TensorInfo]:
        """The embedding, which is not measured, and the prediction layer, which is the largest matrix."""
        shape = (self.vocabulary, self.width)
        return [TensorInfo(f"{name}.weight", torch.bfloat16, shape) for name in ("model.embed_tokens", "lm_head")]

    def block(self, number: int) -> list[TensorInfo]:
        """The linear layers of one block, and its norms."""
        shapes = {
            "self_attn.q_proj": (self.width, self.width), "self_attn.k_proj": (self.keys, self.width),
            "self_attn.v_proj": (self.keys, self.width), "self_attn.o_proj": (self.width, self.width),
            "mlp.gate_proj": (self.inner, self.width), "mlp.up_proj": (self.inner, self.width),
            "mlp.down_proj": (self.width, self.inner),
            "input_layernorm": (self.width,), "post_attention_layernorm": (self.width,),
        }  # fmt: skip
        return [TensorInfo(f"model.layers.{number}.{n}.weight", torch.bfloat16, s) for n, s in shapes.items()]


def main() -> None:
    options = parsed()
    shape = Shape(layers=options.layers).divided(options.divide)
    kept = {name: str(value) for name, value in vars(options).items() if name not in ("folder", "json")}
    result: dict = {"benchmark": "advise_large", "options": kept}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place, "run")
        for step in (1, 2):
            size = make(folder / f"checkpoint-{1000 * step}", shape, seed=step)
        print(f"2 checkpoints of {size / 2e9:.3f} B parameters, {size / 1e9:.2f} GB each", flush=True)
        found = measure(folder, "advise", Path(place, "cache"), not options.no_spectra, options.permutations)
        spectra = "without spectra" if options.no_spectra else "all weights-only metrics"
        verdict = "met" if found["peak"] <= AIM else "MISSED"
        print(f"advise, {spectra}: peak {found['peak']:.2f} GB anonymous (aim {AIM}: {verdict}), {took(found)}")
        result |= provenance() | {"bytes": size, "aim": AIM, "advise": found}
        if options.weightwatcher:
            other = measure(folder, "weightwatcher", Path(place, "cache"), True)
            ratios = [other[clock] / found[clock] for clock in ("seconds", "cpu_seconds")]
            print(f"WeightWatcher, {other['layers']} layers: peak {other['peak']:.2f} GB, {took(other)}")
            print(f"WeightWatcher / advise: {ratios[0]:.1f} by the clock, {ratios[1]:.1f} by CPU time")
            result |= {"weightwatcher": other}
    if options.json:
        write_json(options.json, result)


def make(folder: Path, shape: Shape, *, seed: int) -> int:
    """A sharded checkpoint of random bfloat16 weights, one tensor in memory at a time; returns its bytes."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    embedding, head = shape.tables()
    shards = [[embedding]]
    for first in range(0, shape.layers, PER_SHARD):
        shards.append([info for i in range(first, min(first + PER_SHARD, shape.layers)) for info in shape.block(i)])
    shards.append([head])
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


def measure(folder: Path, kind: str, cache: Path, spectra: bool, copies: int | None = None) -> dict[str, float]:
    """Peak anonymous memory (GB), seconds and CPU seconds of one process, imports not counted in the times."""
    words = [sys.executable, "-c", CHILD, str(folder), kind, str(cache), str(spectra), str(copies)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def took(found: dict[str, float]) -> str:
    """Its times in words."""
    return f"{found['seconds']:.0f} s ({found['cpu_seconds']:.0f} s of CPU)"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=positive, default=Shape.layers, help="Transformer blocks")
    parser.add_argument("--divide", type=positive, default=1, help="make every width so many times smaller")
    parser.add_argument("--no-spectra", action="store_true")
    parser.add_argument("--permutations", type=int, help="random copies (default: by cost)")
    parser.add_argument("--weightwatcher", action="store_true", help="its analyze(randomize=True) on the same folder")
    parser.add_argument("--folder", type=Path, help="where to make the checkpoints (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"in all {time.monotonic() - started:.0f} s")
