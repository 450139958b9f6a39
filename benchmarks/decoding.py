"""Greedy translation: target tokens a second, twore.models.greedy against an uncached loop.

    python benchmarks/decoding.py [--json benchmarks/results/decoding.json]
    python benchmarks/decoding.py --width 512 --layers 6 --vocabulary 32000        # Transformer-base, minutes

Compared, on one thread (or with --device cuda on the GPU), with the same untrained model and the same batches:
- uncached  the loop one writes first, and the report's authors ran: the whole prefix through the decoder at each step,
            until every sentence of the batch is done. Helped where it can be: sentences are encoded once, and only the
            last position is predicted.
- library   `model.generate` of transformers, with its cache; a batch runs to its largest limit.
- cached    twore: one position a step, finished sentences dropped, no generation machinery.

An untrained model hardly ever ends a sentence, so each sentence's limit does: as long as its source give or take a
quarter, lengths drawn evenly from 10 to 40 tokens and sorted, as an evaluation sorts them. A rate counts the tokens
that are kept. Every timing is a fresh process, after one batch of warm-up; all cases of a round run one after the other
(the order turns each round), a ratio is taken within its round, and every number is kept. That the cases translate
alike is counted first. Numbers of a busy machine mean nothing: what other processes used is measured and said.

Target (median): cached at least 5 times uncached.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import Clock, Timing, in_words, judged, kept, measure, positive, provenance, show, take_turns, write_json
from torch import Tensor

from twore.models import BOS, EOS, PAD, UNK, greedy, transformer_base

TARGET = 5.0  # times the uncached loop; what this project asks of itself
HEAD_WIDTH = 64  # of d_model a head, as published
SHORTEST, LONGEST = 10, 40  # source tokens; our choice: most sentences of a news corpus


@dataclass(frozen=True)
class Workload:
    """What every case translates."""

    vocabulary: int
    width: int
    layers: int
    sentences: int
    batch: int
    device: str

    def model(self) -> Any:
        """Untrained, in evaluation mode; its logits stretched, so that few are nearly tied."""
        torch.manual_seed(0)
        heads = max(1, self.width // HEAD_WIDTH)
        sizes = {"d_model": self.width, "layers": self.layers, "heads": heads, "ffn": 4 * self.width}
        model = transformer_base(self.vocabulary, **sizes).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(10.0)
        return model.to(self.device)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Padded sources (B, S) and limits (B,), shortest first."""
        draw = torch.Generator().manual_seed(0)
        lengths = torch.randint(SHORTEST, LONGEST + 1, (self.sentences,), generator=draw).sort().values
        stretch = 0.75 + 0.5 * torch.rand(self.sentences, generator=draw)
        limits = (lengths * stretch).round().long()
        tokens = torch.randint(UNK + 1, self.vocabulary, (self.sentences, LONGEST), generator=draw)
        places = torch.arange(LONGEST)
        tokens[places >= lengths[:, None]] = PAD
        tokens[places == lengths[:, None] - 1] = EOS
        parts = zip(tokens.split(self.batch), lengths.split(self.batch), limits.split(self.batch))
        cut = ((part[:, : int(longest.max())], limit) for part, longest, limit in parts)
        return [(part.to(self.device), limit.to(self.device)) for part, limit in cut]


@torch.inference_mode()
def uncached_greedy(model: Any, source: Tensor, limits: Tensor) -> list[list[int]]:
    """The whole prefix again at each step, for all sentences until the last one is done."""
    mask = (source != PAD).long()
    memory = model.model.encoder(input_ids=source, attention_mask=mask).last_hidden_state
    tokens = torch.full((len(source), 1), BOS, device=source.device)  # (B, 1 + T)
    done = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    while not done.all():
        hidden = model.model.decoder(
            input_ids=tokens, encoder_hidden_states=memory, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        logits = model.lm_head(hidden[:, -1])
        logits[:, [PAD, BOS]] = -torch.inf
        written = logits.argmax(dim=-1)
        tokens = torch.cat((tokens, written[:, None]), dim=1)
        done |= (written == EOS) | (tokens.shape[1] - 1 >= limits)
    return _cut(tokens, limits)


@torch.inference_mode()
def library_greedy(model: Any, source: Tensor, limits: Tensor) -> list[list[int]]:
    """By transformers, with its cache."""
    mask = (source != PAD).long()
    return _cut(model.generate(input_ids=source, attention_mask=mask, max_new_tokens=int(limits.max())), limits)


CASES: dict[str, Callable[[Any, Tensor, Tensor], list[list[int]]]] = {
    "uncached": uncached_greedy,
    "library": library_greedy,
    "cached": greedy,
}


def translate(work: Workload, clock: Clock, *, case: str) -> int:
    """All batches on one thread, after the first one as warm-up. Returns the tokens kept."""
    torch.set_num_threads(1)
    model, batches = work.model(), work.batches()
    CASES[case](model, *batches[0])
    clock.start()
    tokens = sum(len(row) for batch in batches for row in CASES[case](model, *batch))
    clock.stop()
    return tokens


def main() -> None:
    """Measure all cases in turn, print the rates and the ratios, and keep everything."""
    options = _arguments()
    work = Workload(options.vocabulary, options.width, options.layers, options.sentences, options.batch, options.device)
    about = provenance(work.device)
    print(f"{work.layers}+{work.layers} layers, width {work.width}, vocabulary {work.vocabulary}; ", end="")
    print(f"{work.sentences} sentences in batches of {work.batch}, greedy")
    print(f"{in_words(about)}\n")
    agreement = _agreement(work)
    for name, share in agreement.items():
        print(f"{name}: {100 * share:.1f} % of a batch's translations equal to the uncached loop's")

    def run(name: str) -> Timing:
        return measure(partial(translate, work, case=name))

    rounds = take_turns(list(CASES), run, options.rounds, lambda timing: f"{timing.rate:8.0f} tokens/s")
    ratios = {
        "cached / uncached": _ratio(rounds, "cached", "uncached", TARGET),
        "cached / library": _ratio(rounds, "cached", "library"),
    }
    show("tokens/s", rounds, ratios)
    if options.json:
        result = {"benchmark": "decoding", "provenance": about, "settings": asdict(work), "equal": agreement}
        write_json(options.json, result | {"ratios": ratios, "rounds": kept(rounds)})


def _cut(written: Tensor, limits: Tensor) -> list[list[int]]:
    """(B, 1 + T), with BOS: each row's tokens before its EOS, at most its limit."""
    rows = [row[1 : 1 + limit] for row, limit in zip(written.tolist(), limits.tolist())]
    return [row[: row.index(EOS)] if EOS in row else row for row in rows]


def _agreement(work: Workload) -> dict[str, float]:
    """The share of the first batch that each case translates as the uncached loop does."""
    torch.set_num_threads(1)
    model, batch = work.model(), work.batches()[0]
    results = {name: case(model, *batch) for name, case in CASES.items()}
    expected = results.pop("uncached")
    return {name: sum(a == b for a, b in zip(result, expected)) / len(expected) for name, result in results.items()}


def _ratio(rounds: list[dict[str, Timing]], case: str, other: str, target: float | None = None) -> dict[str, Any]:
    return judged([timings[case].rate / timings[other].rate for timings in rounds], target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--width", type=positive, default=256, help="d_model; heads of 64, feed-forward 4 times it")
    parser.add_argument("--layers", type=positive, default=3, help="of each stack")
    parser.add_argument("--vocabulary", type=positive, default=8000)
    parser.add_argument("--sentences", type=positive, default=64)
    parser.add_argument("--batch", type=positive, default=32, help="sentences at once")
    parser.add_argument("--rounds", type=positive, default=3, help="each measures every case once")
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
