"""Training a translation model: target tokens a second, twore's loop against the Seq2SeqTrainer of transformers.

    python benchmarks/train_translation.py [--data DIR] [--json benchmarks/results/train_translation.json]

Compared, with the same model (MarianMTModel), the same tokens and, in the mean, as many padded tokens a batch:
- trainer         Seq2SeqTrainer with its defaults (batches of a fixed number of sentences in random order, padded by
                  DataCollatorForSeq2Seq, AdamW, float32, torch's default threads). It is given every core this process
                  may use, so its rate is divided by their number.
- trainer, 1 core the same held to one core, with one thread.
- float32, bf16   one worker of a twore study: twore.training.train on one thread, batches by tokens.
- 2 x float32, 2 x bf16  two such workers at once.

A rate counts the target tokens that are learned from, padding not. The trainer's batch is the number of sentences that
makes its mean padded size, the longer side counted, equal to twore's budget. It is helped where its defaults cost more
than training (no saving, no evaluation, no reports) and trains without label smoothing, its default, which twore does
with. Every timing is a fresh process, after some updates of warm-up; all cases of a round run one after the other (the
order turns each round), a ratio is taken within its round, and every number is kept. Without --data the text is the
generated corpus. Numbers of a busy machine mean nothing: what other processes used is measured and said.

Target (median): twore at least 1.5 times the trainer, a core, in the precision that it would choose. bf16 is left out
where the device has no instructions for it. With --device cuda both sides train on the GPU, and the cases held to a
core and those of two workers fall away.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    Clock,
    Timing,
    has_bf16,
    in_words,
    judged,
    kept,
    measure,
    positive,
    provenance,
    show,
    take_turns,
    write_json,
)

from twore.seeds import seed_everything
from twore.study.trial import FirstBatches
from twore.tasks import TranslationTask
from twore.tasks.translation import TranslationData
from twore.training import WMT14_DENSE, Numerics, Run, train
from twore.training.numerics import WORTHWHILE, use_threads

TARGET = 1.5  # times the trainer; what this project asks of itself


@dataclass(frozen=True)
class Workload:
    """What every case trains."""

    task: TranslationTask
    folder: Path | None
    budget: int  # padded tokens a side
    warmup: int  # updates that are not counted
    updates: int  # counted ones
    device: str

    def data(self) -> TranslationData:
        """The tokens; made once, then found in the cache."""
        return self.task.load(self.folder, torch.device(self.device))


class _Counted(FirstBatches):
    """Starts the clock after some updates of the epoch, and counts the target tokens that come after."""

    def __init__(self, work: Workload, clock: Clock) -> None:
        super().__init__(work.data(), work.warmup + work.updates)
        self.work, self.clock, self.seen, self.tokens = work, clock, 0, 0

    def loss(self, model: Any, batch: Any) -> Any:
        """Of the task, counted."""
        if self.seen == self.work.warmup:
            self.clock.start()
        self.seen += 1
        self.tokens += len(batch.wanted) if self.seen > self.work.warmup else 0
        return self._data.loss(model, batch)


def worker(work: Workload, clock: Clock, *, precision: str) -> int:
    """A worker of a twore study: one thread, the real training loop. Returns target tokens."""
    use_threads(1)
    seed_everything(0)
    data, model = _Counted(work, clock), work.task.build()
    spec = replace(WMT14_DENSE, epochs=1, batch_size=work.budget)
    train(Run(model.to(work.device), data, spec, "dense", 0, Numerics(device=work.device, precision=precision)))
    clock.stop()
    return data.tokens


def trainer(work: Workload, clock: Clock, *, one_core: bool = False) -> int:
    """Seq2SeqTrainer with its defaults. Returns target tokens."""
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
    from transformers import (
        DataCollatorForSeq2Seq,
        MarianTokenizer,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

    data = work.data()
    seed_everything(0)
    model, counted = work.task.build(), 0
    pairs = [
        {"input_ids": data.train.source[row].tolist(), "labels": data.train.target[row].tolist()}
        for row in range(len(data.train))
    ]

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal counted
            if state.global_step == work.warmup:
                counted = 0
                clock.start()

    with tempfile.TemporaryDirectory() as folder:
        data.text.vocabulary.export_marian_tokenizer(Path(folder))
        collate = DataCollatorForSeq2Seq(MarianTokenizer.from_pretrained(folder), model=model)

        def counting(features: list[dict[str, Any]]) -> Any:
            nonlocal counted
            counted += sum(len(feature["labels"]) for feature in features)
            return collate(features)

        arguments = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_train_batch_size=sentences(data, work.budget), use_cpu=work.device == "cpu",
            max_steps=work.warmup + work.updates, save_strategy="no", report_to="none", disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        run = Seq2SeqTrainer(model, arguments, train_dataset=pairs, data_collator=counting, callbacks=[Watch()])
        run.train()
        clock.stop()
    return counted


def sentences(data: TranslationData, budget: int) -> int:
    """Sentences of a random batch whose longer side, padded, takes `budget` tokens in the mean."""
    longer = np.maximum(data.train.source.lengths, data.train.target.lengths)
    draws = np.random.default_rng(0).permutation(longer)

    def padded_tokens(size: int) -> float:
        batches = draws[: len(draws) // size * size].reshape(-1, size)
        return size * float(batches.max(axis=1).mean())

    return max(takewhile(lambda size: padded_tokens(size) <= budget, range(1, len(draws))), default=1)


CASES: dict[str, tuple[Callable[..., int], int]] = {  # name -> (what runs, how many copies at once)
    "trainer": (trainer, 1),
    "trainer, 1 core": (partial(trainer, one_core=True), 1),
    "float32": (partial(worker, precision="float32"), 1),
    "bf16": (partial(worker, precision="bf16"), 1),
    "2 x float32": (partial(worker, precision="float32"), 2),
    "2 x bf16": (partial(worker, precision="bf16"), 2),
}


def main() -> None:
    """Measure all cases in turn, print the rates and the ratios, and keep everything."""
    options = _arguments()
    task = TranslationTask(
        dataset="wmt14" if options.data else "generated", max_words=options.words if options.data else 0,
        vocab_size=options.vocabulary, d_model=options.width, layers=options.layers, heads=max(1, options.width // 64),
        ffn=4 * options.width, scored_on="newstest2013" if options.data else "test", also=(),
    )  # fmt: skip
    if options.device == "cuda":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # the Trainer would share a batch among all of them
    work = Workload(task, options.data, options.budget, options.warmup, options.updates, options.device)
    about, data = provenance(work.device), work.data()
    size = sentences(data, work.budget)
    print(
        f"{task.layers}+{task.layers} layers, width {task.d_model}, vocabulary {task.vocab_size}, {task.dataset} text"
    )
    print(f"batches: {work.budget} padded tokens a side, or {size} sentences")
    print(f"{in_words(about)}\n")

    def run(name: str) -> Timing:
        case, copies = CASES[name]
        return measure(partial(case, work), copies=copies)

    cases = [name for name in CASES if has_bf16(work.device) or not name.endswith("bf16")]
    if work.device == "cuda":
        cases = [name for name in cases if name in ("trainer", "float32", "bf16")]
    rounds = take_turns(cases, run, options.rounds, lambda timing: f"{timing.rate:8.0f} tokens/s")
    ratios = _ratios(rounds, about["cores"] if work.device == "cpu" else 1)
    show("tokens/s", rounds, ratios)
    if options.json:
        settings = {"budget": work.budget, "sentences": size, "updates": work.updates, "task": asdict(task)}
        settings |= {"device": work.device}
        result = {"benchmark": "train_translation", "provenance": about, "settings": settings}
        write_json(options.json, result | {"ratios": ratios, "rounds": kept(rounds)})


def _ratios(rounds: list[dict[str, Timing]], count: int) -> dict[str, dict[str, Any]]:
    """count: cores of the machine, all of which the trainer may use; 1 where a GPU trains."""

    def over(case: str, other: str, times: float = 1.0) -> list[float]:
        return [times * timings[case].rate / timings[other].rate for timings in rounds]

    ratios, chosen = {}, {"float32": True}
    if "bf16" in rounds[0]:
        gain = ratios["bf16 / float32"] = judged(over("bf16", "float32"))
        pays = gain["median"] >= WORTHWHILE
        chosen = {"float32": not pays, "bf16": pays}
    for name, is_chosen in chosen.items():
        target = TARGET if is_chosen else None
        if "trainer, 1 core" not in rounds[0]:
            ratios[f"{name} / trainer"] = judged(over(name, "trainer"), target)
            continue
        ratios |= {
            f"{name} / trainer, a core": judged(over(name, "trainer", count), target),
            f"{name} / trainer on one core": judged(over(name, "trainer, 1 core")),
            f"two workers, {name} / trainer": judged(over(f"2 x {name}", "trainer")),
        }
    return ratios


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    folder = os.environ.get("TWORE_DATA")
    parser.add_argument("--data", type=Path, default=folder and Path(folder), help="folder with WMT14; else generated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides train")
    parser.add_argument("--words", type=positive, default=30, help="longest sentences of real text that are used")
    parser.add_argument("--width", type=positive, default=128, help="d_model; heads of 64, feed-forward 4 times it")
    parser.add_argument("--layers", type=positive, default=3, help="of each stack")
    parser.add_argument("--vocabulary", type=positive, default=1000)
    parser.add_argument("--budget", type=positive, default=1500, help="padded tokens a side of a batch")
    parser.add_argument("--warmup", type=positive, default=10, help="updates that are not counted")
    parser.add_argument("--updates", type=positive, default=60, help="counted updates")
    parser.add_argument("--rounds", type=positive, default=3, help="each measures every case once")
    parser.add_argument("--json", type=Path, help="file to keep everything in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
