"""One sentencepiece vocabulary for both languages (Kudo and Richardson 2018): BPE, or a unigram model.

Ids 0 to 3 are padding, begin, end and unknown. Training is deterministic: the same lines and options give the same
bytes, whatever the machine; the bytes' hash says which vocabulary it is. V pieces.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import sentencepiece
import torch

from twore.data.images import DataError
from twore.files import write_bytes

PAD, BOS, EOS, UNK = 0, 1, 2, 3
TOKENIZERS = ("bpe", "unigram")
# Unigram sums its counts thread by thread, and the number is written into the model: so it is fixed. Our choice.
TRAIN_THREADS = 4
RARE = 0.9995  # share of the text's letters that get a piece (sentencepiece's default) where there are many letters
LONGEST_LINE = 4_192  # bytes; sentencepiece's default, not passed to it: what is passed is written into the model
MANY = 8  # ... which is when the letters would take more than 1/8 of the vocabulary; our choice


class Vocabulary:
    """V pieces of text; made by `train_vocabulary` or from the bytes of a sentencepiece model."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        special = [self._pieces.pad_id(), self._pieces.bos_id(), self._pieces.eos_id(), self._pieces.unk_id()]
        if special != [PAD, BOS, EOS, UNK]:
            raise DataError(
                f"the sentencepiece model has pad, bos, eos, unk = {special}, not 0, 1, 2, 3: train another"
            )

    def __len__(self) -> int:
        """V, with the four special ids."""
        return self._pieces.get_piece_size()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the model's bytes, 64 hex digits."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin or end; as many threads as torch has."""
        return self._pieces.encode(list(texts), out_type=int, num_threads=torch.get_num_threads())

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Detokenised text of each row of ids, up to its first EOS; PAD and BOS say nothing."""
        kept = [[i for i in takewhile(lambda i: i != EOS, map(int, row)) if i not in (PAD, BOS)] for row in ids]
        return self._pieces.decode(kept) if kept else []

    def save(self, path: Path) -> None:
        """Write the sentencepiece model."""
        write_bytes(path, self.model)

    def export_marian_tokenizer(self, folder: Path) -> None:
        """Write a transformers MarianTokenizer that gives the same ids (and EOS): `MarianTokenizer.from_pretrained`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("source.spm", "target.spm"):
            self.save(folder / name)
        pieces = {self._pieces.id_to_piece(i): i for i in range(len(self))}
        write_bytes(folder / "vocab.json", json.dumps(pieces, ensure_ascii=False).encode())
        special = {"pad_token": PAD, "eos_token": EOS, "unk_token": UNK}
        settings: dict[str, str | bool | int] = {name: self._pieces.id_to_piece(i) for name, i in special.items()}
        settings |= {"tokenizer_class": "MarianTokenizer", "separate_vocabs": False, "model_max_length": 512}
        write_bytes(folder / "tokenizer_config.json", json.dumps(settings, indent=2).encode())


def train_vocabulary(
    texts: Iterable[str], size: int, *, tokenizer: str = "bpe", where: str = "the training text"
) -> Vocabulary:
    """Train `size` pieces on `texts` (read twice: no iterator; lines over LONGEST_LINE bytes are passed over).

    where: what the text is of, for messages.
    Every letter of the text gets a piece, unless letters would take more than an eighth of the vocabulary: then the
    rarest, 0.05 % of the text, are unknown. `DataError` for a size that the text does not support, with the nearest one
    that it does.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer is one of {', '.join(TOKENIZERS)}: got {tokenizer!r}")
    letters: set[str] = set()
    for text in texts:
        letters.update(text)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type=tokenizer,
            character_coverage=1.0 if MANY * len(letters) <= size else RARE,
            num_threads=TRAIN_THREADS,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            minloglevel=2,  # it logs hundreds of lines otherwise
        )
    except RuntimeError as error:
        raise DataError(_in_words(str(error), size, where)) from error
    return Vocabulary(model.getvalue())


def _in_words(message: str, size: int, where: str) -> str:
    """Sentencepiece's complaint as a sentence with a way out."""
    if found := re.search(r"value <= (\d+)", message):
        return f"vocab_size={size} is larger than {where} supports: at most {found[1]} here, or more text"
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"vocab_size={size} is smaller than the letters of {where}: at least {found[1]} here"
    if "sentences_.empty()" in message:
        return (
            f"{where} has no line of at most {LONGEST_LINE:,} bytes to train a vocabulary on: split its lines into "
            "sentences, or name other files"
        )
    return f"sentencepiece cannot train {size} pieces on {where}: {message}"
