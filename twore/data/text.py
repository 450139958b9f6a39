"""From a corpus to token arrays: choose pairs, train the vocabulary on the training text, encode, keep, reuse.

    data = token_data(TextSpec(dataset="generated", vocab_size=1000), None)
    data.sets["train"].source.lengths          # (N,), with EOS
    sources, references = data.texts("test")   # raw strings

The arrays are made once, in a folder of $TWORE_CACHE (else of the user's cache folder) whose name is a hash of
everything they depend on. 1.28 M pairs of WMT14 take about 0.35 GB there, and some minutes once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from twore.data.images import DataError
from twore.data.known_corpora import Known, known_corpus, read_and_note
from twore.data.pairs import Pairs
from twore.data.parallel import TRAIN, Corpus
from twore.data.text_subsets import HELD_OUT, POSITIONS, TextSpec, choose_pairs
from twore.data.tokens import (
    TokenPairs,
    check_folder,
    discard_folder,
    encode_pairs,
    make_folder,
    read_pairs,
    write_pairs,
)
from twore.data.vocabulary import Vocabulary, train_vocabulary
from twore.files import CorruptFileError, cache_folder

__all__ = ["HELD_OUT", "POSITIONS", "TextSpec", "TokenData", "cache_folder", "corpus_fingerprint", "token_data"]

log = logging.getLogger("twore")

FORMAT = 1  # raise it when the same spec and corpus become other arrays
MODEL = "vocabulary.model"


@dataclass(frozen=True, eq=False)
class TokenData:
    """The tokens of all sets, the vocabulary, and the evaluation sets' text."""

    spec: TextSpec
    vocabulary: Vocabulary
    sets: dict[str, TokenPairs]  # "train", "heldout-a" and "heldout-b" if any, and the corpus's evaluation sets
    fingerprint: str  # of the corpus
    counts: dict[str, dict[str, int]]  # set -> pairs read, left out for each reason, and used; its tokens
    where: str  # what the corpus was read from when the arrays were made
    folder: Path  # of the arrays

    def texts(self, name: str) -> tuple[list[str], list[str]]:
        """(sources, references) of an evaluation set, as in the corpus; no training text is kept."""
        if name == TRAIN or name not in self.sets:
            there = ", ".join(set_ for set_ in self.sets if set_ != TRAIN)
            raise ValueError(f"{name!r} is no evaluation set: there are {there or 'none'}")
        text = json.loads((self.folder / f"{name}.texts.json").read_text(encoding="utf-8"))
        return text["sources"], text["references"]

    def rows(self, name: str) -> NDArray[np.int64]:
        """Which pairs of its corpus set these are, (N,): 0 is the first with text on both sides."""
        return np.load(self.folder / f"{name}.rows.npy")

    def describe(self) -> dict[str, Any]:
        """What was loaded, for provenance; the chosen rows by their hash, they themselves are stored (`rows`)."""
        return {
            "source": self.where,
            "fingerprint": self.fingerprint,
            "pairs": self.counts,
            "train_rows_sha256": hashlib.sha256(self.rows(TRAIN).astype("<i8").tobytes()).hexdigest(),
            "tokenizer": self.spec.tokenizer,
            "vocabulary": len(self.vocabulary),
            "vocabulary_sha256": self.vocabulary.sha256,
        }


def token_data(spec: TextSpec, folder: Path | None, *, cache: Path | None = None) -> TokenData:
    """The token arrays of `spec`, made or found.

    `folder` is the data folder, as for `load_corpus`; `cache` as for `cache_folder`. `DataError` in
    one sentence for what `load_corpus` refuses, a size that the corpus does not have, or a cache folder that cannot be
    written.
    """
    root = cache_folder(cache)
    known = known_corpus(root, spec.dataset, folder, spec.source, spec.target)
    with _said_of(root):
        if known and (found := _open(_place(root, spec, known), spec)):
            return found
        (root / "tokens").mkdir(parents=True, exist_ok=True)  # refused before gigabytes are read, not after
    corpus = read_and_note(root, spec.dataset, folder, spec.source, spec.target)
    path = _place(root, spec, Known(corpus.fingerprint, corpus.dropped))
    with _said_of(root):
        if found := _open(path, spec):
            return found
        make_folder(path, lambda building: _fill(building, spec, corpus))
        made = _open(path, spec)
    if made is None:  # another process found a fault in it, or somebody deletes
        raise DataError(f"{path} vanished while it was read: run again, with no one deleting in {root}")
    return made


def corpus_fingerprint(spec: TextSpec, folder: Path | None, *, cache: Path | None = None) -> str:
    """The fingerprint of the corpus of `spec`; its text is read only if it was not before."""
    root = cache_folder(cache)
    known = known_corpus(root, spec.dataset, folder, spec.source, spec.target)
    return (known or read_and_note(root, spec.dataset, folder, spec.source, spec.target)).fingerprint


def _place(root: Path, spec: TextSpec, corpus: Known) -> Path:
    """The folder of the arrays, named by everything that they depend on."""
    on = [FORMAT, asdict(spec), corpus.fingerprint, corpus.dropped, sentencepiece.__version__]
    return root / "tokens" / hashlib.sha256(json.dumps(on, sort_keys=True).encode()).hexdigest()[:24]


def _open(path: Path, spec: TextSpec) -> TokenData | None:
    """What is in the folder; None when it is not there, or was damaged and therefore thrown away."""
    try:
        about = check_folder(path)
    except CorruptFileError as error:
        log.warning("token arrays are damaged and made again: %s", error)
        discard_folder(path)
        return None
    if about is None:
        return None
    counts = {name: dict(items) for name, items in about["counts"]}
    sets = {name: read_pairs(path, name) for name in counts}
    vocabulary = Vocabulary((path / MODEL).read_bytes())
    return TokenData(spec, vocabulary, sets, about["fingerprint"], counts, about["where"], path)


@contextlib.contextmanager
def _said_of(root: Path) -> Iterator[None]:
    """Trouble with the cache folder in one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"cannot keep token arrays in {root} ({reason}): name another folder with TWORE_CACHE"
        ) from error


def _fill(folder: Path, spec: TextSpec, corpus: Corpus) -> dict[str, Any]:
    chosen = choose_pairs(spec, corpus)
    training = chosen.sets[TRAIN]
    log.info("training a vocabulary of %d on %d pairs of %s", spec.vocab_size, len(training), corpus.where)
    vocabulary = train_vocabulary(
        _BothSides(training), spec.vocab_size, tokenizer=spec.tokenizer, where=f"the training text of {corpus.where}"
    )
    vocabulary.save(folder / MODEL)
    for name, pairs in chosen.sets.items():
        counts, rows = chosen.counts[name], chosen.rows[name]
        if name == TRAIN:
            tokens, kept, _ = encode_pairs(pairs, vocabulary, drop_over=spec.max_tokens)
            counts["over max_tokens"] = len(pairs) - len(kept)
            rows = rows[kept]
            if not len(rows):
                limit = f"max_tokens={spec.max_tokens}"
                raise DataError(f"no training pair of {corpus.where} has at most {limit} tokens a side: raise it")
        else:
            tokens, _, cut = encode_pairs(pairs, vocabulary, cut_at=POSITIONS)
            counts["sides cut at the model's positions"] = cut
            if cut:
                longer = (any(len(ids) >= POSITIONS for ids in vocabulary.encode(pair)) for pair in pairs)
                log.warning("%s", _cut_in_words(name, int(rows[list(longer).index(True)]), cut, corpus.where))
            sources, references = pairs.texts()
            text = json.dumps({"sources": sources, "references": references}, ensure_ascii=False)
            (folder / f"{name}.texts.json").write_text(text, encoding="utf-8")
        counts |= {"used": len(tokens)}
        log.info("%s: %s", name, ", ".join(f"{n:,} {what}" for what, n in counts.items() if n or what == "used"))
        counts |= {"source tokens": len(tokens.source.values), "target tokens": len(tokens.target.values)}
        write_pairs(folder, name, tokens)
        np.save(folder / f"{name}.rows.npy", rows)
    ordered = [[name, list(counts.items())] for name, counts in chosen.counts.items()]  # a record sorts mappings
    return {"fingerprint": corpus.fingerprint, "where": corpus.where, "counts": ordered, "spec": asdict(spec)}


def _cut_in_words(name: str, first: int, cut: int, where: str) -> str:
    """Of evaluation sentences that were cut, the first one: a warning, since one sentence must not stop a study."""
    place = f"pair {first + 1} of {TRAIN if name in HELD_OUT else name}"
    return (
        f"{where}: {place} has more tokens than the model's {POSITIONS} positions: "
        f"{cut} side{'s' * (cut > 1)} of {name} cut there, references are scored whole"
    )


class _BothSides:
    """Every source and target of the pairs, again each time it is iterated over."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(chain(*part.texts()) for part in self.pairs.parts())
