"""Sentence pairs kept in Arrow memory: the bytes of the text and eight a sentence, no Python object a sentence.

Measured on 68,607 pairs of German-English news and parliament: 293 bytes a pair (0.38 GB for 1.28 M pairs, 1.3 GB for
all 4.5 M of WMT14), and 464 as a list of tuples of str, which is never made of all pairs. N pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CHUNK = 65_536  # pairs made into Python strings at a time


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[tuple[str, str]]):
    """N (source, target) sentence pairs: a read-only sequence of tuples, with what is fast done on all at once."""

    source: pa.ChunkedArray  # (N,) large_string, no nulls
    target: pa.ChunkedArray  # (N,)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Pairs:
        """From pairs of str."""
        listed = list(pairs)
        sides = ([pair[side] for pair in listed] for side in (0, 1))
        return cls(*(pa.chunked_array([pa.array(side, pa.large_string())]) for side in sides))

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """All pairs of the parts, in order."""
        sides = ([chunk for part in parts for chunk in getattr(part, side).chunks] for side in ("source", "target"))
        return cls(*(pa.chunked_array(chunks, pa.large_string()) for chunks in sides))

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> Pairs: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | Pairs:
        if isinstance(index, slice):
            return Pairs(self.source[index], self.target[index])
        return self.source[index].as_py(), self.target[index].as_py()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for part in self.parts():
            yield from zip(*part.texts())

    def parts(self) -> Iterator[Pairs]:
        """All pairs in order, at most CHUNK at a time."""
        for start in range(0, len(self), CHUNK):
            yield self[start : start + CHUNK]

    def texts(self) -> tuple[list[str], list[str]]:
        """Sources and targets as Python strings."""
        return self.source.to_pylist(), self.target.to_pylist()

    def take(self, rows: NDArray[np.int64]) -> Pairs:
        """The pairs of these rows, in their order."""
        return Pairs(self.source.take(pa.array(rows)), self.target.take(pa.array(rows)))

    def empty(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which sources and which targets are nothing but white space, (N,) each."""
        source, target = (_numpy(pc.equal(pc.binary_length(trim(side)), 0)) for side in self._sides())
        return source, target

    def words(self) -> NDArray[np.int64]:
        """Words between white space of each pair's longer side, (N,)."""
        counts = []
        for part in self.parts():  # in parts, since the words of all pairs at once take much memory
            sides = (pc.list_value_length(pc.utf8_split_whitespace(trim(side))) for side in (part.source, part.target))
            counts.append(np.maximum(*map(_numpy, sides)))
        return np.concatenate(counts).astype(np.int64) if counts else np.zeros(0, np.int64)

    def shares_a_side_with(self, others: Pairs) -> NDArray[np.bool_]:
        """Which pairs have the source or the target of one of `others`, surrounding white space aside, (N,)."""
        same = [pc.is_in(trim(mine), value_set=trim(theirs)) for mine, theirs in zip(self._sides(), others._sides())]
        return _numpy(pc.or_(*same))

    def first_of_each(self) -> NDArray[np.int64]:
        """Rows of the first occurrence of each distinct pair, rising."""
        codes = [
            side.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64) for side in self._sides()
        ]
        _, first = np.unique(codes[0] * (len(self) + 1) + codes[1], return_index=True)
        return np.sort(first).astype(np.int64)

    def _sides(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        return self.source, self.target


def trim(side: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without white space at either end."""
    return pc.utf8_trim_whitespace(side)


def content_fingerprint(sets: Mapping[str, Pairs]) -> str:
    """A hash of all text: equal for equal sets of equal pairs, whatever files they came from."""
    digest = hashlib.sha256()
    for name in sorted(sets):
        for side in (sets[name].source, sets[name].target):
            lengths = _numpy(pc.binary_length(side)).astype("<i8")  # bytes; without them other splits would agree
            digest.update(f"{name} {len(lengths)}\n".encode())
            digest.update(lengths.data)
            for chunk in side.chunks:
                digest.update(_text_bytes(chunk))
    return f"sha256:{digest.hexdigest()[:32]}"  # 128 bits, as for images


def _text_bytes(chunk: pa.LargeStringArray) -> memoryview:
    """The UTF-8 of all strings of a chunk, end to end, without a copy."""
    _, offsets, data = chunk.buffers()
    if data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(data)[ends[0] : ends[-1]]


def _numpy(values: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    return values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
