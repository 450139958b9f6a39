"""Token arrays come back as they were, whole or not at all."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from twore.data import pairs as pairs_module
from twore.data.pairs import Pairs
from twore.data.tokens import (
    MANIFEST,
    TokenPairs,
    Tokens,
    check_folder,
    discard_folder,
    encode_pairs,
    make_folder,
    read_pairs,
    write_pairs,
)
from twore.data.vocabulary import EOS
from twore.files import CorruptFileError


class Letters:
    """A vocabulary in which a letter is an id: a = 10, b = 11, ..."""

    def encode(self, texts):
        return [[ord(letter) - 87 for letter in text if letter != " "] for text in texts]


def test_tokens_by_hand():
    tokens = Tokens.of([[5, 6], [], [7]])
    assert tokens.values.tolist() == [5, 6, EOS, EOS, 7, EOS] and tokens.offsets.tolist() == [0, 3, 4, 6]
    assert len(tokens) == 3 and tokens.lengths.tolist() == [3, 1, 2] and tokens[2].tolist() == [7, EOS]
    joined = Tokens.joined([tokens, Tokens.of([[8]])])
    assert joined.offsets.tolist() == [0, 3, 4, 6, 8] and joined[3].tolist() == [8, EOS]
    assert joined.values.dtype == np.int32 and joined.offsets.dtype == np.int64


def test_long_and_empty_pairs_are_dropped(monkeypatch):
    monkeypatch.setattr(pairs_module, "CHUNK", 2)  # across chunks
    pairs = Pairs.of([("ab", "c"), ("abc", "c"), ("a", "abc"), (" ", "a"), ("b", "dd")])
    tokens, rows, cut = encode_pairs(pairs, Letters(), drop_over=2)
    assert rows.tolist() == [0, 4] and cut == 0
    assert tokens.source[1].tolist() == [11, EOS] and tokens.target[1].tolist() == [13, 13, EOS]


def test_long_sides_are_cut_and_counted():
    pairs = Pairs.of([("abc", "a"), ("ab", "abcd"), ("", "a")])
    tokens, rows, cut = encode_pairs(pairs, Letters(), cut_at=3)
    assert rows.tolist() == [0, 1, 2] and cut == 2
    assert tokens.source.lengths.tolist() == [3, 3, 1] and tokens.target[1].tolist() == [10, 11, EOS]


def test_arrays_are_mapped_and_equal(tmp_path):
    pairs = TokenPairs(Tokens.of([[5, 6], [7]]), Tokens.of([[8], [9, 10]]))
    write_pairs(tmp_path, "train", pairs)
    read = read_pairs(tmp_path, "train")
    assert np.array_equal(read.source.values, pairs.source.values) and read.target[1].tolist() == [9, 10, EOS]
    assert isinstance(read.source.values.base, np.memmap) and not read.source.values.flags.writeable


def fill(text: str):
    def write(folder):
        (folder / "a").write_text(text)
        return {"text": text}

    return write


def test_a_folder_is_made_once_and_checked(tmp_path):
    path = tmp_path / "x" / "made"
    assert check_folder(path) is None
    make_folder(path, fill("one"))
    assert check_folder(path) == {"text": "one"} and sorted(f.name for f in path.iterdir()) == ["a", MANIFEST]
    make_folder(path, fill("two"))  # as another process that was slower
    assert check_folder(path) == {"text": "one"}
    assert [f.name for f in path.parent.iterdir()] == ["made"]


@pytest.mark.parametrize("harm", ["alter", "remove", "manifest", "no-manifest"])
def test_damage_is_noticed(tmp_path, harm):
    path = tmp_path / "made"
    make_folder(path, fill("one"))
    target = path / (MANIFEST if "manifest" in harm else "a")
    if harm in ("remove", "no-manifest"):
        target.unlink()
    else:
        target.write_bytes(target.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptFileError):
        check_folder(path)
    discard_folder(path)
    discard_folder(path)
    assert check_folder(path) is None and not list(tmp_path.iterdir())


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_folder(tmp_path / "made", fail)
    assert not list(tmp_path.iterdir())


def test_folders_of_killed_builds_go_after_a_day(tmp_path):
    old, young = tmp_path / ".building-old", tmp_path / ".building-young"
    old.mkdir(), young.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    make_folder(tmp_path / "made", fill("one"))
    assert not old.exists() and young.exists()
