"""The NLP task: a Marian Transformer that translates German to English, scored by BLEU.

The report: section 6.1 (WMT14, Transformer-base). Score: sacreBLEU on detokenised text, 0-100. Prunable: linear layers
and the untied prediction layer, never embeddings (the study says so).
Shape letters: B sentences, S source tokens, T target tokens, N target tokens of a batch without padding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twore.data import DataError
from twore.data.text import HELD_OUT, POSITIONS, TextSpec, token_data
from twore.data.token_batches import evaluation_batches, padded, token_batches
from twore.data.tokens import TokenPairs
from twore.data.vocabulary import BOS, PAD
from twore.models import transformer_base
from twore.models.decoding import beam_search, greedy
from twore.models.transformer import NORMS, teacher_forced
from twore.tasks.bleu import translation_scores

EVAL_TOKENS = 4_000  # padded tokens a side of a batch in evaluation; fixed, since rounding depends on it
SAMPLES = 6  # sentences of which translations are kept
LONGER, LONGEST = 1.5, 10  # a translation has at most 1.5 x source tokens + 10; our choice: longer ones are babble
DECODING = 3  # forward passes that translating a sentence costs, with a cache; our choice, for plans
SETS: dict[str, dict[str, int]] = {  # pairs of each set, for plans without data
    "generated": {"train": 24_000, "validation": 500, "test": 500},
    "wmt14": {"train": 4_508_785, "newstest2013": 3_000, "newstest2014": 3_003},
}
TOKENS = {"generated": 14, "wmt14": 34}  # padded tokens a side of a training pair; wmt14: 1,500 x 28,966 / 1.28 M


class TokenBatch(NamedTuple):
    """Some sentence pairs as the model takes them."""

    source: Tensor  # (B, S) int64, padded
    target: Tensor  # (B, T) int64, what the decoder reads: BOS, then the target without its end
    where: Tensor  # (N,) int64, the positions of `target`, flattened, that are not padding
    wanted: Tensor  # (N,) int64, the token that follows each of them


@dataclass(frozen=True)
class TranslationTask(TextSpec):
    """Translation with a Transformer (MarianMTModel, untied)."""

    kind: ClassVar[str] = "translation"
    score_label: ClassVar[str] = "BLEU"
    equal_batches: ClassVar[bool] = False  # sentences are shuffled, then cut by tokens
    plain_version: ClassVar[int] = 2  # 1: the first pairs of the corpus, longest sentences first
    setting_fields: ClassVar[tuple[str, ...]] = ("dataset", "layers", "d_model", "norm", "data_percent")

    # First come the fields of TextSpec, which say what is translated; then:
    d_model: int = 512
    """Width of the model."""
    layers: int = 6
    """Layers of the encoder, and of the decoder."""
    heads: int = 8
    """Attention heads."""
    ffn: int = 2048
    """Width of the feed-forward layers."""
    norm: str = "post"
    """post (as published) or pre (what the authors' code ran)."""
    dropout: float = 0.1
    """Dropout on sublayer outputs and embeddings."""
    label_smoothing: float = 0.1
    """Share of the target probability that is spread over the vocabulary."""
    scored_on: str = "newstest2013"
    """The set whose BLEU is the score."""
    chosen_on: str = ""
    """The set whose BLEU is valid_score, on which epochs are chosen; empty means none."""
    also: tuple[str, ...] = ("newstest2014",)
    """Further sets that are scored, in columns that begin with their names. With max_words: on what that keeps."""
    beams: int = 1
    """1 decodes greedily (as the authors' code), more search with so many beams."""
    similarity_pairs: int = 0
    """Training pairs that model_similarity is measured on, evenly spaced; 0 means all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(NORMS)}: got {self.norm!r}")
        for name in ("layers", "heads", "ffn", "beams", "d_model", "vocab_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a whole number, at least 1: got {value}")
        if self.d_model % self.heads or self.d_model % 2:
            raise ValueError(f"d_model is even and a multiple of heads={self.heads}: got {self.d_model}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is in [0, 1): got {getattr(self, name)}")
        if self.similarity_pairs < 0:
            raise ValueError(f"similarity_pairs is 0 or more: got {self.similarity_pairs}")
        if isinstance(self.also, str):
            raise ValueError(f"also is a list of sets, such as ['newstest2014']: got {self.also!r}")
        object.__setattr__(self, "also", tuple(self.also))  # a list is not hashable
        sets = [name for name in (self.scored_on, self.chosen_on, *self.also) if name]
        if not self.scored_on or len(set(sets)) != len(sets):
            raise ValueError(f"scored_on, chosen_on and also name different sets, scored_on at least one: got {sets}")
        if {"valid", "test"} & set(self.also):
            raise ValueError("also cannot name a set `valid` or `test`: these are columns of chosen_on and scored_on")
        held_out = set(HELD_OUT) if self.heldout else set()
        known = (set(SETS[self.dataset]) | held_out) - {"train"} if self.dataset in SETS else set(sets) - {"train"}
        if missing := [name for name in sets if name not in known]:
            there = ", ".join(sorted(known)) or "others"
            raise ValueError(f"{self.dataset} has no set {missing[0]!r} to score: there are {there}")
        if self.dataset in SETS and {self.source, self.target} != {"de", "en"}:
            raise ValueError(f"{self.dataset} here is in de and en: got {self.source!r} and {self.target!r}")

    @property
    def text(self) -> TextSpec:
        """The fields that decide what the tokens are."""
        return TextSpec(**{f.name: getattr(self, f.name) for f in fields(TextSpec)})

    def known_fingerprint(self) -> str | None:
        """The fingerprint of the generated corpus; other text is read first."""
        if self.dataset != "generated":
            return None
        from twore.data.generated import GENERATED_FINGERPRINT  # its grammar is not small

        return GENERATED_FINGERPRINT

    def load(self, folder: Path | None, device: torch.device) -> TranslationData:
        """Token arrays (memory-mapped, built on first use) and the evaluation texts."""
        return TranslationData(self, folder, device)

    def build(self) -> nn.Module:
        """A freshly initialised Transformer."""
        return transformer_base(
            self.vocab_size, d_model=self.d_model, layers=self.layers, heads=self.heads, ffn=self.ffn,
            dropout=self.dropout, norm=self.norm, max_positions=POSITIONS,
        )  # fmt: skip

    @property
    def example_size(self) -> int:
        """Padded tokens a side that one training pair takes up of a batch."""
        typical = TOKENS.get(self.dataset, TOKENS["wmt14"])
        return min(typical, round(1.3 * self.max_words) + 1) if self.max_words else typical

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """A pair as the model is called with it: source (1, S), its mask, target (1, T)."""
        tokens = torch.ones(1, self.example_size, dtype=torch.int64)
        return tokens, torch.ones_like(tokens), tokens

    def example_counts(self) -> dict[str, int]:
        """Pairs of each part, as far as they are known without the text; "train" is not where a filter or the corpus
        decides."""
        sets = SETS.get(self.dataset, {}) | dict.fromkeys(HELD_OUT, self.heldout)
        train = self.pairs or (0 if self.max_words else sets.get("train", 0))
        counts = {"train": round(self.data_percent / 100 * train)} if train else {}
        for name in filter(None, (self.scored_on, self.chosen_on, *self.also)):
            count = sets.get(name, 3_000)
            counts[name] = DECODING * (min(self.eval_pairs, count) if self.eval_pairs else count)
        return counts


class TranslationData:
    """The task's sentence pairs, as TaskData."""

    def __init__(self, task: TranslationTask, folder: Path | None, device: torch.device) -> None:
        self.task, self.device = task, device
        self.text = token_data(task.text, folder)
        self.fingerprint = self.text.fingerprint
        names = {"valid": task.chosen_on, "test": task.scored_on} | {name: name for name in task.also}
        self.names = {split: name for split, name in names.items() if name}  # split -> set
        self.splits = tuple(self.names)
        missing = [name for name in self.names.values() if name not in self.text.sets]
        if missing:
            there = ", ".join(name for name in self.text.sets if name != "train")
            raise DataError(f"the corpus has no set {missing[0]!r} to score: there are {there}")
        self.train = self.text.sets["train"]

    def updates(self, batch_size: int) -> int:
        """Batches of an epoch: the same number for every seed."""
        return len(self._batches(batch_size, seed=0))

    def epoch(self, batch_size: int, seed: int) -> Iterator[TokenBatch]:
        """Every training pair once, in batches of at most `batch_size` padded tokens a side, shuffled."""
        for rows in self._batches(batch_size, seed):
            yield self._batch(self.train, rows)

    def plain(self) -> Iterator[TokenBatch]:
        """The training pairs (similarity_pairs of them, evenly spaced) in fixed batches, whose order is mixed: whoever
        reads the first few sees long and short sentences from all of the text."""
        count = min(self.task.similarity_pairs or len(self.train), len(self.train))
        rows = np.arange(count) * len(self.train) // count
        batches = evaluation_batches(self._longer(self.train)[rows], EVAL_TOKENS)
        for place in np.random.PCG64(0).random_raw(len(batches)).argsort(kind="stable"):
            yield self._batch(self.train, rows[batches[place]])

    def loss(self, model: nn.Module, batch: TokenBatch) -> tuple[Tensor, int]:
        """Label-smoothed cross-entropy in nats, summed over the target tokens, and their number."""
        smoothing = self.task.label_smoothing
        return F.cross_entropy(_logits(model, batch), batch.wanted, reduction="sum", label_smoothing=smoothing), len(
            batch.wanted
        )

    def outputs(self, model: nn.Module, batch: TokenBatch) -> Tensor:
        """Probabilities of the next target token with teacher forcing, (N, V) float32; padding excluded."""
        return _logits(model, batch).softmax(dim=1)

    def targets(self, batch: TokenBatch) -> Tensor:
        """The right token of each row of `outputs`, (N,) int64."""
        return batch.wanted

    def evaluate(self, model: nn.Module, split: str) -> dict[str, Any]:
        """score (BLEU), chrf, legacy_bleu, bleu_signature; loss: cross-entropy in nats a target token, not smoothed."""
        name = self.names[split]
        pairs = self.text.sets[name]
        totals, count = [], 0
        for rows in evaluation_batches(self._longer(pairs), EVAL_TOKENS):
            batch = self._batch(pairs, rows)
            totals.append(F.cross_entropy(_logits(model, batch), batch.wanted, reduction="sum"))
            count += len(batch.wanted)
        _, references = self.text.texts(name)
        scores = translation_scores(self.translate(model, name), references)
        return {**scores, "loss": float(torch.stack(totals).cpu().double().sum()) / count}

    def translate(self, model: Any, name: str, first: int | None = None) -> list[str]:
        """Translations of a set (of its first sentences), detokenised, in the order of the set."""
        pairs = self.text.sets[name]
        lengths = pairs.source.lengths[:first]
        found: list[list[int]] = [[] for _ in range(len(lengths))]
        for rows in evaluation_batches(lengths, EVAL_TOKENS):
            source = padded(pairs, rows)[0].to(self.device)
            most = torch.from_numpy(np.ceil(LONGER * lengths[rows]).astype(np.int64) + LONGEST)
            limits = most.clamp(max=POSITIONS - 1).to(self.device)
            decode = greedy if self.task.beams == 1 else _beams(self.task.beams)
            for row, tokens in zip(rows.tolist(), decode(model, source, limits)):
                found[row] = tokens
        return self.text.vocabulary.decode(found)

    def samples(self, model: nn.Module) -> list[str]:
        """Translations of the first sentences of the scored set, to be read by people."""
        return self.translate(model, self.task.scored_on, SAMPLES)

    def describe(self) -> dict[str, Any]:
        """Counts, source, vocabulary, and the samples' texts."""
        sources, references = self.text.texts(self.task.scored_on)
        samples = [{"input": s, "reference": r} for s, r in zip(sources[:SAMPLES], references[:SAMPLES])]
        return {**self.text.describe(), "train": len(self.train), "samples": samples}

    def _batches(self, budget: int, seed: int) -> list[np.ndarray]:
        return token_batches(self.train.source.lengths, self.train.target.lengths, budget, seed)

    @staticmethod
    def _longer(pairs: TokenPairs) -> np.ndarray:
        return np.maximum(pairs.source.lengths, pairs.target.lengths)

    def _batch(self, pairs: TokenPairs, rows: np.ndarray) -> TokenBatch:
        source, wanted = padded(pairs, rows)  # (B, S), (B, T), both ending in EOS
        target = torch.cat([torch.full((len(rows), 1), BOS), wanted[:, :-1]], dim=1)
        where = (wanted.flatten() != PAD).nonzero().squeeze(1)  # found here, so that no device has to be waited for
        wanted = wanted.flatten()[where]
        return TokenBatch(*(t.to(self.device, non_blocking=True) for t in (source, target, where, wanted)))


def _logits(model: Any, batch: TokenBatch) -> Tensor:
    """(N, V) float32."""
    return teacher_forced(model, batch.source, batch.target, kept=batch.where).float()


def _beams(count: int) -> Any:
    return lambda model, source, limits: beam_search(model, source, limits, beams=count)
