"""Corpora from each layout are the same corpus; what is wrong with a file is said with its name and line."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twore.data.images import DataError
from twore.data.pairs import Pairs
from twore.data.parallel import load_corpus

# The first English sentence holds a line separator (U+2028), at which str.splitlines would cut the file.
SETS = {
    "train": [("Ein Haus.", "A\u2028house."), ("Zwei „Häuser“", "Two houses"), ("Drei", " Three ")],
    "validation": [("Vier", "Four")],
    "test": [("Fünf", "Five"), ("Sechs", "Six")],
}


def as_parquet(folder: Path, sets=SETS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in sets.items():
        rows = [{"de": de, "en": en} for de, en in pairs]
        pq.write_table(pa.table({"translation": rows}), folder / f"{name}-00000-of-00001.parquet")
    return folder


def as_columns(folder: Path, sets=SETS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in sets.items():
        table = pa.table({"id": range(len(pairs)), "en": [en for _, en in pairs], "de": [de for de, _ in pairs]})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def as_jsonl(folder: Path, sets=SETS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in sets.items():
        records = [{"de": de, "en": en} for de, en in pairs]
        nested = [record if i % 2 else {"translation": record} for i, record in enumerate(records)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in nested))
    return folder


def as_text(folder: Path, sets=SETS, end: str = "\n", start: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in sets.items():
        for side, language in enumerate(("de", "en")):
            text = start + end.join(pair[side] for pair in pairs) + end
            (folder / f"{name}.{language}").write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("write", [as_parquet, as_columns, as_jsonl, as_text])
def test_every_layout_gives_the_same_corpus(tmp_path, write):
    corpus = load_corpus("mine", write(tmp_path / "mine").parent)
    assert {name: list(pairs) for name, pairs in corpus.sets.items()} == SETS
    assert corpus.fingerprint == load_corpus("mine", as_jsonl(tmp_path / "other")).fingerprint
    assert corpus.dropped == 0 and str(tmp_path / "mine") in corpus.where
    back = load_corpus("mine", tmp_path, source="en", target="de")
    assert list(back.sets["test"]) == [("Five", "Fünf"), ("Six", "Sechs")] and back.fingerprint != corpus.fingerprint


def test_windows_text_files(tmp_path):
    expected = load_corpus("mine", as_text(tmp_path / "mine")).fingerprint
    assert load_corpus("w", as_text(tmp_path / "w", end="\r\n", start="\ufeff")).fingerprint == expected


def test_the_fingerprint_is_of_the_text_and_its_borders(tmp_path):
    seen = set()
    for i, train in enumerate([[("ab", "c"), ("d", "e")], [("a", "c"), ("bd", "e")], [("d", "e"), ("ab", "c")]]):
        seen.add(load_corpus("x", as_jsonl(tmp_path / str(i), {"train": train})).fingerprint)
    assert len(seen) == 3


@pytest.mark.parametrize("inner", ["wmt14/de-en", "wmt14", "de-en", "."])
def test_wmt14_has_its_sets_names_wherever_it_lies(tmp_path, inner):
    as_parquet(tmp_path / inner)
    corpus = load_corpus("wmt14", tmp_path)
    assert list(corpus.sets) == ["train", "newstest2013", "newstest2014"]
    assert list(corpus.sets["newstest2014"]) == SETS["test"]


def test_shards_keep_their_order_and_must_be_complete(tmp_path):
    as_parquet(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match="1 train parquet files of 2"):
        load_corpus("x", tmp_path)
    pq.write_table(pa.table({"translation": [{"de": "a", "en": "b"}]}), tmp_path / "train-00001-of-00002.parquet")
    assert list(load_corpus("x", tmp_path).sets["train"]) == [*SETS["train"], ("a", "b")]


@pytest.mark.parametrize("write", [as_parquet, as_jsonl, as_text])
def test_empty_training_pairs_are_dropped_and_counted(tmp_path, write):
    with_empty = {"train": [("", "x"), *SETS["train"], ("y", " \u00a0 "), ("", "")], **{"test": SETS["test"]}}
    corpus = load_corpus("x", write(tmp_path, with_empty))
    assert list(corpus.sets["train"]) == SETS["train"] and corpus.dropped == 3


@pytest.mark.parametrize(
    ("write", "place"),
    [(as_parquet, "row 1, text in 'en'"), (as_jsonl, "line 2, text in 'en'"), (as_text, r"test.en, line 2,")],
)
def test_an_empty_side_of_an_evaluation_set_is_an_error(tmp_path, write, place):
    with pytest.raises(DataError, match=rf"test.*{place}.* is empty"):
        load_corpus("x", write(tmp_path, {**SETS, "test": [("a", "b"), ("c", " ")]}))


def test_unequal_line_counts(tmp_path):
    as_text(tmp_path)
    with (tmp_path / "train.en").open("a") as stream:
        stream.write("One more\n")
    with pytest.raises(DataError, match=r"train.de has 3 lines but .*train.en 4: .* from line 4 on"):
        load_corpus("x", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.de", "eins\nFünf\ndrei\n".encode("latin1"), r"train.de, line 2, is not UTF-8.*iconv"),
        ("train.jsonl", b'{"de": "a", "en": "b"}\n{"de": "F\xfcnf", "en": "b"}\n', "line 2, is not UTF-8"),
        ("train.jsonl", b'{"de": "\\ud800", "en": "b"}\n', "line 1, is not UTF-8"),
        ("train.jsonl", b'{"de": "a", "en": "b"}\n{"de": \n', "line 2, is not JSON"),
        ("train.jsonl", b'{"de": "a", "fr": "b"}\n', "line 1, has no 'en' but de, fr"),
        ("train.jsonl", b'["a", "b"]\n', "line 1, has no 'de' but list"),
        ("train.jsonl", b'{"de": "a", "en": 3}\n', "line 1, has no text in 'en' but 3"),
        ("train.jsonl", b"[" * 100_000 + b"\n", "line 1, is not JSON .too deep"),
        ("train.jsonl", b"\n\n", "holds no sentence pairs"),
        ("train.jsonl", b"", "train.jsonl holds no sentence pairs"),
        ("train.parquet", b"PAR1 not really", "train.parquet is damaged or no parquet file"),
        ("train.parquet", b"", "train.parquet is damaged or no parquet file"),
    ],
    ids=[
        "latin1", "latin1-json", "surrogate", "no-json", "language", "list", "number", "deep", "blank", "empty-json",
        "parquet", "empty-parquet",
    ],
)  # fmt: skip
def test_bad_files_are_named_with_their_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    if name == "train.de":
        (tmp_path / "train.en").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match=message) as raised:
        load_corpus("x", tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["train", "test"])
def test_empty_text_files(tmp_path, name):
    as_text(tmp_path)
    for language in ("de", "en"):
        (tmp_path / f"{name}.{language}").write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name}.de holds no sentence pairs"):
        load_corpus("x", tmp_path)


def test_damaged_parquet(tmp_path):
    """Cut short, and a byte of a page changed: with the checksums that prepare_wmt14.py writes, no change gets by."""
    path = tmp_path / "train.parquet"
    table = pa.table({"de": [f"Satz {i}" for i in range(500)], "en": [f"sentence {i}" for i in range(500)]})
    pq.write_table(table, path, write_page_checksum=True)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    for damaged in (whole[:-9], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="train.parquet is damaged or no parquet file: copy or download it again"):
            load_corpus("x", tmp_path)
    pq.write_table(table[:0], path)
    with pytest.raises(DataError, match="train.parquet holds no sentence pairs"):
        load_corpus("x", tmp_path)


def test_bad_parquet_tables(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"de": ["a"], "fr": ["b"]}), path)
    with pytest.raises(DataError, match="no columns 'de' and 'en' but de, fr"):
        load_corpus("x", tmp_path)
    pq.write_table(pa.table({"de": ["a"], "en": [1]}), path)
    with pytest.raises(DataError, match="int64 and no text in 'en'"):
        load_corpus("x", tmp_path)
    broken = pa.array([b"a", b"\xff"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"de": broken, "en": ["a", "b"]}), path)
    with pytest.raises(DataError, match="train.parquet, row 1, text in 'de', is not UTF-8"):
        load_corpus("x", tmp_path)


def test_what_is_missing_or_there_twice(tmp_path):
    with pytest.raises(DataError, match="name the folder it is in with --data"):
        load_corpus("mine", None)
    with pytest.raises(
        DataError, match=r"no mine in .*: it needs train\*.parquet, train.jsonl, or train.de and train.en"
    ):
        load_corpus("mine", tmp_path)
    for dataset in ("mine", "wmt14"):
        with pytest.raises(DataError, match=rf"no {dataset} in .*absent, which does not exist: it needs train"):
            load_corpus(dataset, tmp_path / "absent")
    (tmp_path / "train.de").write_text("a\n")
    with pytest.raises(DataError, match="train.de is there but not its translation: add .*train.en"):
        load_corpus("mine", tmp_path)
    (tmp_path / "train.en").write_text("a\n")
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"train.jsonl and train.de, the same set twice"):
        load_corpus("mine", tmp_path)
    with pytest.raises(DataError, match="two languages"):
        load_corpus("mine", tmp_path, source="de", target="de")


def test_evaluation_without_training_text(tmp_path):
    as_text(tmp_path, {"test": SETS["test"]})
    with pytest.raises(DataError, match="has test but no training text"):
        load_corpus("mine", tmp_path)


def test_generated(monkeypatch):
    fake = SimpleNamespace(generated_corpus=lambda: SETS, GENERATED_FINGERPRINT="generated-1")
    monkeypatch.setitem(sys.modules, "twore.data.generated", fake)
    corpus = load_corpus("generated", None)
    assert corpus.fingerprint == "generated-1" and list(corpus.sets["train"]) == SETS["train"] and not corpus.files
    assert load_corpus("generated", None, source="en", target="de").sets["test"][0] == ("Five", "Fünf")
    with pytest.raises(DataError, match="'de' and 'en'"):
        load_corpus("generated", None, target="fr")


# --- the hub


@pytest.fixture
def online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_hub_out_of_reach_fails_at_once(monkeypatch, online):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("the hub client was called"))
        with pytest.raises(DataError, match="no connection to 127.0.0.1.*--data DIR.*'generated'"):
            load_corpus("wmt14", None)


def test_offline_is_said(monkeypatch):
    def fail(*_: str) -> None:
        raise ConnectionError("offline")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: pytest.fail("a connection was tried"))
    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set, and it is not in the cache"):
        load_corpus("wmt14", None)


def test_hub_data_equal_the_same_parquet(monkeypatch, online, tmp_path):
    import datasets

    sets = {**SETS, "train": [("", "empty"), *SETS["train"]]}
    expected = load_corpus("wmt14", as_parquet(tmp_path, sets))
    asked = []

    def fake(*repository: str) -> datasets.DatasetDict:
        asked.append(repository)
        tables = {name: pq.read_table(tmp_path / f"{name}-00000-of-00001.parquet") for name in SETS}
        return datasets.DatasetDict({name: datasets.Dataset(table) for name, table in tables.items()})

    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: None)
    monkeypatch.setattr("datasets.load_dataset", fake)
    found = load_corpus("wmt14", None)
    assert asked == [("wmt/wmt14", "de-en")]
    assert found.fingerprint == expected.fingerprint and found.dropped == expected.dropped == 1
    with pytest.raises(DataError, match="from or to English"):
        load_corpus("wmt14", None, target="fr")


# --- pairs


def test_pairs_are_a_sequence():
    pairs = Pairs.joined([Pairs.of([("a b", "c")]), Pairs.of([("d", "e  f g "), ("d", "c")])])
    assert len(pairs) == 3 and pairs[1] == ("d", "e  f g ") and pairs[-1] == ("d", "c")
    assert list(pairs[1:]) == list(pairs)[1:] and ("d", "c") in pairs
    assert pairs.words().tolist() == [2, 3, 1]
    assert pairs.shares_a_side_with(Pairs.of([("x", "c "), ("y", "e")])).tolist() == [True, False, True]


def test_first_of_each_needs_both_sides_equal():
    pairs = Pairs.of([("a", "b"), ("a", "c"), ("a", "b"), ("b", "a"), ("a", "c")])
    assert pairs.first_of_each().tolist() == [0, 1, 3]
