"""The embedded corpus: German-English sentence pairs drawn from a grammar of our own (`twore.data.grammar`).

It needs no network and no file. German is correct, English natural, and the two differ as the real languages do: the
verb second or last; participles, infinitives and separable prefixes at the end; objects in front; case and gender;
compounds; numbers (einundzwanzig, twenty-one). Each German sentence has one translation here, so a good model can come
near 100 BLEU; replacing word for word scores under 40 (`word_for_word`; a test measures it).

Words follow a Zipf-like law. All parts are drawn alike; validation and test share no sentence with the training part,
in neither language, and every word form of theirs occurs in the training part.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from twore.data.grammar import Draw, sentence
from twore.data.grammar.glosses import glosses, words
from twore.data.grammar.glosses import word_for_word as replace_words

Pairs = list[tuple[str, str]]  # (German, English), detokenised
SEED = 20_210_000  # our choice; another seed is another corpus
TRAIN_PAIRS = 24_000  # our choice: an epoch of a small model takes seconds, and a test sentence is still a new one
HELD_OUT_PAIRS = 500  # each of validation and test; our choice
HELD_OUT_SHARE = 0.05  # of the English sentences drawn, before those with unknown words are dropped
GENERATED_FINGERPRINT = "sha256:9bfd79877029839e01c1dd7b037af9f9"  # of the content; a test recomputes it


def generated_corpus() -> dict[str, Pairs]:
    """The parts train (24,000 distinct pairs), validation (500) and test (500); the same on every machine.

    Built once a process, in a few seconds; each call returns fresh lists.
    """
    return {part: list(pairs) for part, pairs in _corpus().items()}


def corpus_fingerprint(corpus: dict[str, Pairs]) -> str:
    """sha256:... of all sentences in order, parts and sides told apart."""
    digest = hashlib.sha256()
    for part, pairs in corpus.items():
        digest.update(f"{part} {len(pairs)}\n".encode())
        for german, english in pairs:
            digest.update(f"{german}\t{english}\n".encode())
    return f"sha256:{digest.hexdigest()[:32]}"


def word_for_word(german: str) -> str:
    """The best that replacing each German form by one English expression gives, counted on the training part."""
    return replace_words(german, _dictionary())


@lru_cache(maxsize=1)
def _corpus() -> dict[str, tuple[tuple[str, str], ...]]:
    draw = Draw(SEED)
    train: dict[str, str] = {}  # German -> English, in the order drawn
    held_out: dict[str, str] = {}  # English -> German
    trained: set[str] = set()  # English; only asked for members, so its order does not matter
    while len(train) < TRAIN_PAIRS:
        german, english = sentence(draw)
        if german in train or english in held_out:
            continue
        if english not in trained and draw.chance(HELD_OUT_SHARE):  # another German for a known English is training
            held_out[english] = german
            continue
        train[german] = english
        trained.add(english)
    known = {word for pair in train.items() for text in pair for word in words(text)}
    clean = [(g, e) for e, g in held_out.items() if known.issuperset(words(f"{g} {e}"))]
    validation, test = clean[:HELD_OUT_PAIRS], clean[HELD_OUT_PAIRS : 2 * HELD_OUT_PAIRS]
    return {"train": tuple(train.items()), "validation": tuple(validation), "test": tuple(test)}


@lru_cache(maxsize=1)
def _dictionary() -> dict[str, str]:
    return glosses(_corpus()["train"])
