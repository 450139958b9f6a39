"""Which sentence pairs of a corpus are trained and evaluated on, and why the others are not.

In this order: pairs within `max_words` -> a subsample of `pairs` -> out of it two held-out sets, and what shares a
sentence with them -> `data_percent` of the rest. Each choice has its own seeded order of the pairs, from the front of
which training text is taken and from the end of which the held-out pairs: so smaller subsamples and percentages lie
within larger ones, and the held-out sets are the same for every percentage. N pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twore.data.images import DataError
from twore.data.pairs import Pairs
from twore.data.parallel import TRAIN, Corpus
from twore.data.vocabulary import TOKENIZERS
from twore.seeds import derive_seed

HELD_OUT = ("heldout-a", "heldout-b")
PICKS = ("random", "first")
POSITIONS = 512  # tokens of the longest sentence that the model takes: transformers' MarianConfig


@dataclass(frozen=True)
class TextSpec:
    """Everything that decides which token arrays a corpus becomes."""

    dataset: str = "wmt14"
    """wmt14; generated (a German-English grammar, embedded); or the name of a folder with a parallel corpus."""
    source: str = "de"
    """Language to translate from, as the corpus names it."""
    target: str = "en"
    """Language to translate to."""
    pairs: int = 0
    """Size of the subsample of training pairs; 0 means all."""
    pick: str = "random"
    """How the subsample is taken: random (seeded, stored), or first (as the authors' code did)."""
    subset_seed: int = 0
    """Seed of the subsample and of the held-out pairs."""
    data_percent: float = 100.0
    """Share of the training pairs (after the held-out ones) that is used, in percent: nested."""
    heldout: int = 0
    """Pairs taken out of the training text for each of two in-domain sets, heldout-a and heldout-b."""
    max_words: int = 0
    """Keep only pairs of at most so many words a side, in all sets; 0 means no limit."""
    max_tokens: int = 100
    """Training pairs with more tokens a side are left out."""
    eval_pairs: int = 0
    """Pairs of each of the corpus's evaluation sets that are used, the first ones; 0 means all."""
    vocab_size: int = 32_000
    """Pieces of the joint sentencepiece vocabulary."""
    tokenizer: str = "bpe"
    """bpe or unigram."""

    def __post_init__(self) -> None:
        if not self.dataset or "/" in self.dataset or "\\" in self.dataset or self.dataset in (".", ".."):
            raise ValueError(f"dataset is a name; the folder it is in is --data: got {self.dataset!r}")
        if not self.source or not self.target or self.source == self.target:
            raise ValueError(f"source and target are two languages: got {self.source!r} and {self.target!r}")
        if self.pick not in PICKS:
            raise ValueError(f"pick is one of {', '.join(PICKS)}: got {self.pick!r}")
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(f"tokenizer is one of {', '.join(TOKENIZERS)}: got {self.tokenizer!r}")
        for name in ("pairs", "subset_seed", "heldout", "max_words", "eval_pairs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more: got {getattr(self, name)}")
        if not 0 < self.data_percent <= 100:
            raise ValueError(f"data_percent is in (0, 100]: got {self.data_percent}")
        if not 1 <= self.max_tokens < POSITIONS:
            raise ValueError(f"max_tokens is in [1, {POSITIONS - 1}], what a model takes: got {self.max_tokens}")
        if self.vocab_size < 5:
            raise ValueError(f"vocab_size is at least 5, of which 4 are no text: got {self.vocab_size}")


@dataclass(frozen=True, eq=False)
class Subsets:
    """The chosen pairs of each set."""

    sets: dict[str, Pairs]
    rows: dict[str, NDArray[np.int64]]  # which pairs of the corpus they are; rising in training text
    counts: dict[str, dict[str, int]]  # set -> reason -> pairs left out, beginning with "read"


def choose_pairs(spec: TextSpec, corpus: Corpus) -> Subsets:
    """The sets train, heldout-a and heldout-b (if any are held out), and the corpus's evaluation sets.

    `DataError` when the corpus has fewer pairs than the spec asks for.
    """
    chosen = Subsets({}, {}, {})
    _choose_training(spec, corpus, chosen)
    for name, pairs in corpus.sets.items():
        if name == TRAIN:
            continue
        short = _short_enough(pairs, spec.max_words)
        rows = short[: spec.eval_pairs or None]
        if not len(rows):
            raise DataError(f"{name} of {corpus.where} has no pair of at most max_words={spec.max_words}: raise it")
        chosen.sets[name], chosen.rows[name] = pairs.take(rows), rows
        left_out = {"over max_words": len(pairs) - len(short), "beyond eval_pairs": len(short) - len(rows)}
        chosen.counts[name] = {"read": len(pairs), **left_out}
    return chosen


def _choose_training(spec: TextSpec, corpus: Corpus, chosen: Subsets) -> None:
    everything = corpus.sets[TRAIN]
    counts = {"read": len(everything) + corpus.dropped, "empty": corpus.dropped}
    left = len(everything)

    def count(reason: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        nonlocal left
        counts[reason], left = left - len(rows), len(rows)
        return rows

    rows = count("over max_words", _short_enough(everything, spec.max_words))
    rows = count("not in the subsample", _subsample(rows, spec, corpus.where))
    order = rows[_seeded_order(len(rows), "heldout", spec.subset_seed)]
    if spec.heldout:
        held = _held_out(everything, order[::-1], spec.heldout)
        for name, part in zip(HELD_OUT, (held[::2], held[1::2])):
            chosen.sets[name], chosen.rows[name] = everything.take(part), part
            chosen.counts[name] = {"read": len(part)}
        order = count("held out", order[~np.isin(order, held)])
        shared = everything.take(order).shares_a_side_with(everything.take(held))
        order = count("with a held-out sentence", order[~shared])
    if not len(order):
        raise DataError(f"no training pair of {corpus.where} is left ({_in_words(counts)}): loosen the filters")
    rows = count("not in data_percent", order[: max(1, round(spec.data_percent / 100 * len(order)))])
    rows = np.sort(rows)
    chosen.sets[TRAIN], chosen.rows[TRAIN], chosen.counts[TRAIN] = everything.take(rows), rows, counts


def _short_enough(pairs: Pairs, max_words: int) -> NDArray[np.int64]:
    if not max_words:
        return np.arange(len(pairs))
    return np.flatnonzero(pairs.words() <= max_words)


def _subsample(rows: NDArray[np.int64], spec: TextSpec, where: str) -> NDArray[np.int64]:
    if not spec.pairs:
        return rows
    if spec.pairs > len(rows):
        raise DataError(f"pairs={spec.pairs:,} but {where} has {len(rows):,} to take: lower it, or 0 takes all")
    if spec.pick == "first":
        return rows[: spec.pairs]
    return np.sort(rows[_seeded_order(len(rows), "pairs", spec.subset_seed)[: spec.pairs]])


def _held_out(pairs: Pairs, order: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The first 2 x size rows of `order` no two of which share a source or a target, so that neither set leaks."""
    seen: tuple[set[str], set[str]] = (set(), set())
    held: list[int] = []
    for start in range(0, len(order), 4 * size):
        some = order[start : start + 4 * size]
        for row, sides in zip(some.tolist(), pairs.take(some)):
            source, target = (side.strip() for side in sides)
            if source in seen[0] or target in seen[1]:
                continue
            seen[0].add(source)
            seen[1].add(target)
            held.append(row)
            if len(held) == 2 * size:
                return np.array(held, np.int64)
    raise DataError(f"heldout={size:,} takes {2 * size:,} distinct pairs out of {len(held):,}: lower it")


def _seeded_order(size: int, purpose: str, seed: int) -> NDArray[np.int64]:
    """A permutation of range(size)."""
    # The raw stream of PCG64 is what numpy promises to keep for ever; Generator.permutation may change with a release.
    keys = np.random.PCG64(derive_seed("text", purpose, seed)).random_raw(size)
    return np.argsort(keys, kind="stable")


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in counts.items() if number)
