"""The pipeline from a corpus to token arrays: what is chosen, what is counted, and when it is made again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from twore.data import known_corpora, text
from twore.data.images import DataError
from twore.data.text import TextSpec, cache_folder, corpus_fingerprint, token_data
from twore.data.vocabulary import EOS, LONGEST_LINE

WORDS = [
    "haus", "baum", "hund", "katze", "vogel", "fisch", "sonne", "mond",
    "stern", "wind", "regen", "schnee", "berg", "tal", "fluss", "meer",
]  # fmt: skip
SPEC = TextSpec(dataset="mine", vocab_size=60)
LONG = 7  # words of every tenth pair


def sentence(number: int, words: int) -> str:
    return " ".join(WORDS[(number // 16**place) % 16] for place in range(words))


def pairs(count: int, start: int = 0) -> list[tuple[str, str]]:
    """Distinct pairs of 4 words, each tenth of LONG."""
    both = []
    for i in range(start, start + count):
        words = LONG if i % 10 == 9 else 4
        both.append((sentence(i * 7, words), sentence(i * 7, words).upper()))
    return both


def write(folder: Path, **sets: list[tuple[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, both in sets.items():
        lines = [json.dumps({"de": de, "en": en}) + "\n" for de, en in both]
        (folder / f"{name}.jsonl").write_text("".join(lines))
        os.utime(folder / f"{name}.jsonl", (time.time() - 60,) * 2)
    return folder


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """300 training pairs (300 distinct), 20 to validate, 10 to test; the cache is in tmp_path."""
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_corpora, "_touched", lambda path: path.stat().st_mtime)  # a test cannot wait for ctime
    return write(tmp_path / "data", train=pairs(300), validation=pairs(20, 400), test=pairs(10, 500))


def words_of(data, name):
    return [set(data.vocabulary.decode([row])[0].split()) for row in sides(data, name)]


def sides(data, name) -> list[list[int]]:
    tokens = data.sets[name]
    return [side[i].tolist() for i in range(len(tokens)) for side in (tokens.source, tokens.target)]


def sources(data, name) -> list[str]:
    tokens = data.sets[name].source
    return data.vocabulary.decode([tokens[i] for i in range(len(tokens))])


def test_everything_is_encoded_and_ends_in_eos(corpus):
    data = token_data(SPEC, corpus)
    assert {name: len(tokens) for name, tokens in data.sets.items()} == {"train": 300, "validation": 20, "test": 10}
    assert sources(data, "train") == [de for de, _ in pairs(300)]
    assert all(row[-1] == EOS and EOS not in row[:-1] for row in sides(data, "test"))
    assert data.texts("test") == tuple(map(list, zip(*pairs(10, 500))))
    assert data.rows("train").tolist() == list(range(300)) and len(data.vocabulary) == 60
    train = data.counts["train"]
    assert (train["read"], train["used"]) == (300, 300)
    assert train["source tokens"] == data.sets["train"].source.lengths.sum()
    with pytest.raises(ValueError, match="'train' is no evaluation set: there are validation, test"):
        data.texts("train")


@pytest.mark.parametrize("pick", ["random", "first"])
def test_subsamples(corpus, pick):
    small, large = (token_data(replace(SPEC, pairs=n, pick=pick), corpus) for n in (50, 100))
    rows = [data.rows("train").tolist() for data in (small, large)]
    assert len(rows[0]) == 50 and set(rows[0]) < set(rows[1]) and rows[0] == sorted(rows[0])
    assert (rows[0] == list(range(50))) is (pick == "first")
    assert sources(small, "train") == [pairs(300)[row][0] for row in rows[0]]
    assert small.counts["train"]["not in the subsample"] == 250
    other = token_data(replace(SPEC, pairs=50, pick=pick, subset_seed=1), corpus)
    assert np.array_equal(other.rows("train"), rows[0]) is (pick == "first")


def test_percentages_are_nested_and_the_held_out_pairs_stay(corpus):
    spec = replace(SPEC, heldout=15)
    found = [token_data(replace(spec, data_percent=percent), corpus) for percent in (10, 50, 100)]
    rows = [set(data.rows("train").tolist()) for data in found]
    assert [len(part) for part in rows] == [27, 135, 270] and rows[0] < rows[1] < rows[2]
    held = [{name: data.rows(name).tolist() for name in ("heldout-a", "heldout-b")} for data in found]
    assert held[0] == held[1] == held[2]
    together = set(held[0]["heldout-a"]) | set(held[0]["heldout-b"])
    assert len(together) == 30 and together | rows[2] == set(range(300))


def test_no_held_out_sentence_is_left_in_training_or_in_the_other_set(corpus):
    twins = [(de, f"{en} again") for de, en in pairs(200)] + [(f" {de}", f"{en} and again") for de, en in pairs(200)]
    twins += [(f"{de} wieder", f"{en} ") for de, en in pairs(200)]
    write(corpus, train=pairs(200) + twins)
    data = token_data(replace(SPEC, heldout=20, vocab_size=70), corpus)
    everything = pairs(200) + twins
    text_of = {name: [everything[row] for row in data.rows(name)] for name in ("train", "heldout-a", "heldout-b")}
    for side in (0, 1):
        train, first, second = ({pair[side].strip() for pair in rows} for rows in text_of.values())
        assert not first & second and not (first | second) & train and len(first) == len(second) == 20
    counts = data.counts["train"]
    assert counts["held out"] == 40 and counts["with a held-out sentence"] >= 80
    assert counts["read"] == 800 == counts["used"] + counts["held out"] + counts["with a held-out sentence"]
    assert [de.strip() for de in data.texts("heldout-a")[0]] == [de.strip() for de, _ in text_of["heldout-a"]]


def test_max_words_holds_in_all_sets(corpus):
    data = token_data(replace(SPEC, max_words=LONG - 1, heldout=10), corpus)
    assert data.counts["train"]["over max_words"] == 30 and data.counts["validation"]["over max_words"] == 2
    assert len(data.sets["validation"]) == 18
    assert max(len(s.split()) for name in data.sets for s in sources(data, name)) == 4
    with pytest.raises(DataError, match="no pair of at most max_words=1"):
        token_data(replace(SPEC, max_words=1), write(corpus, train=[("a", "b")] * 3))


def test_max_tokens_drops_training_pairs_only(corpus):
    everything = token_data(SPEC, corpus)
    longest = np.maximum(everything.sets["train"].source.lengths, everything.sets["train"].target.lengths) - 1
    limit = int(np.median(longest))
    data = token_data(replace(SPEC, max_tokens=limit), corpus)
    assert data.rows("train").tolist() == np.flatnonzero(longest <= limit).tolist()
    assert data.counts["train"]["over max_tokens"] == (longest > limit).sum() > 0
    assert len(data.sets["validation"]) == 20
    with pytest.raises(DataError, match="no training pair of jsonl files in .* has at most max_tokens=1 tokens"):
        token_data(replace(SPEC, max_tokens=1), corpus)


def test_evaluation_sentences_are_cut_at_the_models_positions(corpus, monkeypatch):
    monkeypatch.setattr(text, "POSITIONS", 9)
    data = token_data(SPEC, corpus)
    lengths = data.sets["validation"].source.lengths
    assert lengths.max() == 9 and data.counts["validation"]["sides cut at the model's positions"] > 0
    assert data.sets["train"].source.lengths.max() > 9
    assert data.texts("validation")[1] == [en for _, en in pairs(20, 400)]  # references stay whole


def test_cut_evaluation_sentences_are_warned_of(corpus, monkeypatch, caplog):
    """The first pair with a longer side is named; at exactly the limit nothing is cut."""
    tokens = token_data(SPEC, corpus).sets["validation"]
    sides = np.stack([tokens.source.lengths, tokens.target.lengths])  # (2, N)
    limit = int(np.median(sides.max(0)))
    over = sides > limit
    assert over.any(0).argmax() > 0, "the first pair is not too long, so that the number says something"
    monkeypatch.setattr(text, "POSITIONS", limit)
    with caplog.at_level(logging.WARNING, logger="twore"):
        data = token_data(replace(SPEC, max_tokens=99), corpus)
    said = next(line for line in caplog.messages if "of validation cut" in line)
    first = over.any(0).argmax() + 1
    assert "jsonl files in" in said and f"pair {first} of validation has more tokens than the model's {limit}" in said
    assert f": {over.sum()} sides of validation cut there" in said
    assert data.counts["validation"]["sides cut at the model's positions"] == over.sum()


def test_what_is_left_out_is_said(corpus, caplog):
    with caplog.at_level(logging.INFO, logger="twore"):
        token_data(replace(SPEC, max_words=LONG - 1, heldout=10), corpus)
    assert "train: 300 read, 30 over max_words, 20 held out, 250 used" in caplog.messages
    assert "validation: 20 read, 2 over max_words, 18 used" in caplog.messages


def test_lines_that_are_too_long_are_left_out_and_only_such_lines_are_an_error(corpus, tmp_path):
    book = " ".join(WORDS * 60)  # more than sentencepiece trains on
    assert len(book) > LONGEST_LINE
    data = token_data(SPEC, write(corpus, train=[*pairs(100), (book, book)]))
    assert data.counts["train"]["over max_tokens"] == 1 and len(data.sets["train"]) == 100
    with pytest.raises(DataError, match=r"training text of jsonl files in .*books/mine has no line of at most 4,192"):
        token_data(SPEC, write(tmp_path / "books" / "mine", train=[(book, book)]).parent)


def test_eval_pairs_takes_the_first(corpus):
    data = token_data(replace(SPEC, eval_pairs=12), corpus)
    assert len(data.sets["validation"]) == 12 and len(data.sets["test"]) == 10
    assert data.texts("validation")[0] == [de for de, _ in pairs(12, 400)]
    assert data.counts["validation"]["beyond eval_pairs"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": 301}, "pairs=301 but .* has 300 to take: lower it"),
        ({"heldout": 151}, "heldout=151 takes 302 distinct pairs out of 300: lower it"),
        ({"heldout": 150}, "no training pair .* is left .*300 held out"),
        ({"vocab_size": 9_000}, "larger than the training text of jsonl files in .* supports: at most"),
        ({"max_words": 1}, "no pair of at most max_words=1|no training pair"),
        ({"source": "fr"}, "has no 'fr' but de, en"),
    ],
)
def test_more_than_the_corpus_has(corpus, change, message):
    with pytest.raises(DataError, match=message) as raised:
        token_data(replace(SPEC, **change), corpus)
    assert "\n" not in str(raised.value)
    assert not list((corpus.parent / "cache" / "tokens").glob("*"))  # nothing half-made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": -1}, "pairs is 0 or more: got -1"),
        ({"pick": "last"}, "random, first: got 'last'"),
        ({"data_percent": 0.0}, r"data_percent is in \(0, 100\]: got 0"),
        ({"max_tokens": 512}, r"max_tokens is in \[1, 511\]"),
        ({"vocab_size": 4}, "at least 5"),
        ({"tokenizer": "word"}, "bpe, unigram: got 'word'"),
        ({"target": "de"}, "two languages"),
        ({"dataset": "../x"}, "dataset is a name"),
    ],
)
def test_bad_specs(change, message):
    with pytest.raises(ValueError, match=message):
        TextSpec(**change)


# --- the cache


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Grows when a corpus is read."""
    log = []
    read = known_corpora.load_corpus
    monkeypatch.setattr(known_corpora, "load_corpus", lambda name, *a, **k: (log.append(name), read(name, *a, **k))[1])
    return log


def test_made_once_and_found_without_reading_the_corpus(corpus, reads):
    first = token_data(SPEC, corpus)
    inodes = {path.name: path.stat().st_ino for path in first.folder.iterdir()}
    again = token_data(SPEC, corpus)
    assert reads == ["mine"] and again.folder == first.folder
    assert {path.name: path.stat().st_ino for path in again.folder.iterdir()} == inodes
    assert again.describe() == first.describe() and json.dumps(first.describe())
    assert list(again.counts) == list(first.counts) and again.counts == first.counts
    assert corpus_fingerprint(SPEC, corpus) == first.fingerprint and reads == ["mine"]
    token_data(replace(SPEC, heldout=5), corpus)  # another spec reads again
    assert reads == ["mine"] * 2


def test_every_field_of_a_spec_has_its_own_arrays(corpus):
    changed = {
        "dataset": "other", "source": "en", "target": "de", "pairs": 5, "pick": "first", "subset_seed": 1,
        "data_percent": 50.0, "heldout": 1, "max_words": 3, "max_tokens": 5, "eval_pairs": 1, "vocab_size": 61,
        "tokenizer": "unigram",
    }  # fmt: skip
    assert set(changed) == {field.name for field in fields(TextSpec)}
    known = known_corpora.Known("x", 0)
    specs = [SPEC, replace(SPEC, source="en", target="de")]
    specs += [replace(SPEC, **{name: value}) for name, value in changed.items() if name not in ("source", "target")]
    places = {text._place(Path(), spec, known) for spec in specs}
    assert len(places) == len(specs)


def test_changed_text_is_noticed(corpus, reads):
    first = token_data(SPEC, corpus)
    path = corpus / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))  # the same size; the time differs
    os.utime(path, (time.time() - 30,) * 2)
    second = token_data(SPEC, corpus)
    assert len(reads) == 2 and second.fingerprint != first.fingerprint and second.folder != first.folder
    assert sources(second, "train")[0] == sources(first, "train")[1]
    token_data(SPEC, corpus)
    assert len(reads) == 2
    (corpus / "test.jsonl").unlink()
    assert list(token_data(SPEC, corpus).sets) == ["train", "validation"]


def test_a_file_touched_just_now_is_read_again(corpus, reads):
    (corpus / "train.jsonl").touch()
    token_data(SPEC, corpus)
    token_data(SPEC, corpus)
    assert len(reads) == 2  # it may change once more within the clock's grain


@pytest.mark.parametrize("harm", ["alter", "remove"])
def test_a_damaged_cache_is_made_again_and_said(corpus, caplog, harm):
    first = token_data(SPEC, corpus)
    expected = sides(first, "train")
    path = first.folder / "train.source.values.npy"
    content = path.read_bytes()
    path.unlink()
    if harm == "alter":
        path.write_bytes(content[:-1] + b"\x01")
    with caplog.at_level(logging.WARNING, logger="twore"):
        again = token_data(SPEC, corpus)
    assert "damaged and made again" in caplog.text and path.name in caplog.text
    assert path.read_bytes() == content and sides(again, "train") == expected
    assert [folder.name for folder in first.folder.parent.iterdir()] == [first.folder.name]


def test_two_builds_agree(corpus, tmp_path):
    first = token_data(replace(SPEC, heldout=10), corpus)
    second = token_data(replace(SPEC, heldout=10), corpus, cache=tmp_path / "elsewhere")
    files = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    assert {path.name: path.read_bytes() for path in second.folder.iterdir()} == files


def test_an_unwritable_cache_is_one_sentence(corpus, tmp_path, monkeypatch, reads):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="cannot keep token arrays in .*name another folder with TWORE_CACHE"):
        token_data(SPEC, corpus)
    assert reads == []  # said before the corpus is read


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("TWORE_CACHE", "~/x")
    assert cache_folder() == Path.home() / "x" and cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("TWORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "twore"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "twore"


def test_the_generated_corpus_needs_no_folder_and_is_made_once(corpus, monkeypatch):
    made = []
    sets = {"train": pairs(100), "validation": pairs(5, 400), "test": pairs(5, 500)}
    fake = SimpleNamespace(generated_corpus=lambda: made.append(1) or sets, GENERATED_FINGERPRINT="generated-1")
    monkeypatch.setitem(sys.modules, "twore.data.generated", fake)
    spec = replace(SPEC, dataset="generated")
    assert corpus_fingerprint(spec, None) == "generated-1" and made == []
    for _ in range(2):
        data = token_data(spec, None)
    assert made == [1] and data.fingerprint == "generated-1" and len(data.sets["train"]) == 100


def test_a_cache_can_be_read_where_it_cannot_be_written(corpus, reads):
    first = token_data(SPEC, corpus)
    shutil.rmtree(first.folder.parents[1] / "corpora")
    (first.folder.parents[1] / "corpora").write_text("in the way of notes")
    assert token_data(SPEC, corpus).folder == first.folder and len(reads) == 2
