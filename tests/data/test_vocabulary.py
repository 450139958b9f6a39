"""The vocabulary is deterministic, gives its text back, and says which size a text supports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from twore.data import vocabulary as module
from twore.data.images import DataError
from twore.data.vocabulary import BOS, EOS, PAD, UNK, Vocabulary, train_vocabulary

WORDS = [
    "der", "die", "das", "Haus", "Häuser", "schön", "größer", "Straße", "sieht",
    "kauft", "the", "house", "houses", "nice", "larger", "street", "sees", "buys",
]  # fmt: skip
TEXTS = [f"{n}: " + " ".join(WORDS[(i * n + n) % len(WORDS)] for i in range(3 + n % 5)) + "." for n in range(200)]


SIZE = {"bpe": 70, "unigram": 45}  # unigram finds fewer pieces in so little text


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def vocabulary(kind) -> Vocabulary:
    return train_vocabulary(TEXTS, SIZE[kind], tokenizer=kind)


def test_ids(vocabulary, kind):
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3) and len(vocabulary) == SIZE[kind]
    ids = [i for text in vocabulary.encode(TEXTS) for i in text]
    assert min(ids) > UNK and max(ids) < SIZE[kind]  # every letter has a piece, and no special id is added
    assert vocabulary.encode(["日"])[0][-1] == UNK


def test_text_comes_back(vocabulary):
    ids = vocabulary.encode(TEXTS)
    assert vocabulary.decode(ids) == TEXTS
    decorated = [[BOS, *text, EOS, *text, PAD, PAD] for text in ids]  # what comes after the end is not said
    assert vocabulary.decode(decorated) == TEXTS
    assert vocabulary.decode([[EOS], []]) == ["", ""] and vocabulary.decode([]) == []
    assert vocabulary.decode(torch.tensor(ids[:1])) == TEXTS[:1]


def test_the_same_text_gives_the_same_bytes(vocabulary, kind, tmp_path):
    assert train_vocabulary(dict.fromkeys(TEXTS), SIZE[kind], tokenizer=kind).sha256 == vocabulary.sha256
    assert train_vocabulary(TEXTS[:-2], SIZE[kind], tokenizer=kind).sha256 != vocabulary.sha256
    vocabulary.save(tmp_path / "x.model")
    assert Vocabulary((tmp_path / "x.model").read_bytes()).encode(TEXTS) == vocabulary.encode(TEXTS)


def test_bpe_does_not_depend_on_the_number_of_threads(monkeypatch):
    expected = train_vocabulary(TEXTS, 70).encode(TEXTS)
    monkeypatch.setattr(module, "TRAIN_THREADS", 1)
    assert train_vocabulary(TEXTS, 70).encode(TEXTS) == expected


def test_the_largest_and_smallest_size_are_named_and_work(kind):
    with pytest.raises(DataError, match="vocab_size=5000 is larger than the training text supports: at most") as raised:
        train_vocabulary(TEXTS, 5000, tokenizer=kind)
    largest = int(re.search(r"at most (\d+)", str(raised.value))[1])
    assert len(train_vocabulary(TEXTS, largest, tokenizer=kind)) == largest
    with pytest.raises(DataError, match="smaller than the letters of the training text: at least") as raised:
        train_vocabulary(TEXTS, 8, tokenizer=kind)
    smallest = int(re.search(r"at least (\d+)", str(raised.value))[1])
    assert len(train_vocabulary(TEXTS, smallest + 1, tokenizer=kind)) == smallest + 1
    assert "\n" not in str(raised.value) and "src/" not in str(raised.value)


def test_no_text():
    with pytest.raises(DataError, match="the training text has no line of at most 4,192 bytes"):
        train_vocabulary([], 100)
    with pytest.raises(ValueError, match="bpe, unigram: got 'word'"):
        train_vocabulary(TEXTS, 70, tokenizer="word")


def test_rare_letters_are_left_out_only_where_letters_are_many():
    texts = [*TEXTS * 20, "日"]
    assert train_vocabulary(texts, 70).encode(["日"])[0][-1] == UNK
    letters = len(set("".join(texts)))
    assert train_vocabulary([*texts, *map(str, range(1000))], 8 * (letters + 10)).encode(["日"])[0][-1] != UNK


def test_training_is_silent(capfd):
    train_vocabulary(TEXTS, 70)
    assert capfd.readouterr() == ("", "")


def test_a_foreign_model_is_refused(tmp_path: Path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=70, model_type="bpe", minloglevel=2
    )
    with pytest.raises(DataError, match="pad, bos, eos, unk = "):
        Vocabulary(model.getvalue())


@pytest.mark.filterwarnings("ignore:Recommended")
def test_transformers_reads_the_exported_tokenizer(vocabulary, tmp_path):
    from transformers import MarianTokenizer

    vocabulary.export_marian_tokenizer(tmp_path)
    tokenizer = MarianTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS[:20], "日 Haus"]
    ids = vocabulary.encode(texts)
    assert tokenizer(texts)["input_ids"] == [[*text, EOS] for text in ids]
    assert tokenizer(text_target=texts)["input_ids"] == [[*text, EOS] for text in ids]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (PAD, EOS, UNK)
    assert tokenizer.batch_decode(ids[:20], skip_special_tokens=True) == TEXTS[:20]
