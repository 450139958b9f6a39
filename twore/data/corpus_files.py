"""Sentence pairs out of files, in three layouts; every complaint names the file and its line (from 1) or row (from 0).

parquet   STEM*.parquet: a column `translation` with a text a language (as the hub has them), or a column a language
jsonl     STEM.jsonl: on each line {"de": ..., "en": ...} or {"translation": {"de": ..., "en": ...}}
text      STEM.de and STEM.en: line n of one translates line n of the other; UTF-8, lines end at a line feed only
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twore.data.images import DataError
from twore.data.pairs import CHUNK, Pairs
from twore.data.parquet import find_shards


@dataclass(frozen=True)
class SetFiles:
    """The files of one set; of a text layout the source's and the target's."""

    layout: str  # parquet, jsonl or text
    paths: tuple[Path, ...]


def find_set(folder: Path, stem: str, source: str, target: str) -> SetFiles | None:
    """The files of the set `stem` in `folder`, or None; `DataError` for half a pair or for more than one layout."""
    found = []
    if shards := find_shards(folder, stem):
        found.append(SetFiles("parquet", tuple(shards)))
    if (path := folder / f"{stem}.jsonl").is_file():
        found.append(SetFiles("jsonl", (path,)))
    sides = folder / f"{stem}.{source}", folder / f"{stem}.{target}"
    present = [path for path in sides if path.is_file()]
    if len(present) == 2:
        found.append(SetFiles("text", sides))
    elif present:
        missing = sides[1] if present == [sides[0]] else sides[0]
        raise DataError(f"{present[0]} is there but not its translation: add {missing}")
    if len(found) > 1:
        names = " and ".join(files.paths[0].name for files in found)
        raise DataError(f"{folder} has {names}, the same set twice: keep one of them")
    return found[0] if found else None


def read_set(files: SetFiles, source: str, target: str, *, training: bool) -> tuple[Pairs, int]:
    """(pairs, empty pairs left out). A side without text is left out of training text, an error in an evaluation set.

    Raises `DataError` in one sentence: damaged, no UTF-8, a language missing, unequal line counts, no pairs.
    """
    if files.layout == "text":
        read = [_read_text(files.paths[0], files.paths[1])]
        places: list[Callable[[int, int], str]] = [lambda row, side: f"{files.paths[side]}, line {row + 1}"]
    else:
        reader, word, first = (_read_parquet, "row", 0) if files.layout == "parquet" else (_read_jsonl, "line", 1)
        read = [reader(path, source, target) for path in files.paths]
        places = [_place(path, word, first, (source, target)) for path in files.paths]
    kept, dropped = [], 0
    for pairs, place in zip(read, places):
        empty = pairs.empty()
        either = empty[0] | empty[1]
        if either.any() and not training:
            row = int(either.argmax())
            raise DataError(f"{place(row, int(not empty[0][row]))}, is empty: an evaluation set needs both sides")
        dropped += int(either.sum())
        kept.append(pairs.take(np.flatnonzero(~either)) if either.any() else pairs)
    joined = Pairs.joined(kept)
    if not len(joined):
        raise DataError(f"{files.paths[0]} holds no sentence pairs: copy or download it again")
    return joined, dropped


def _place(path: Path, word: str, first: int, languages: tuple[str, str]) -> Callable[[int, int], str]:
    return lambda row, side: f"{path}, {word} {row + first}, text in {languages[side]!r}"


def _read_parquet(path: Path, source: str, target: str) -> Pairs:
    sides: tuple[list[Any], list[Any]] = ([], [])
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = _columns(file.schema_arrow, source, target, path)
            for batch in file.iter_batches(CHUNK, columns=[".".join(name) for name in names]):
                for side, name in zip(sides, names):
                    text = batch.column(name[0])
                    text = text if len(name) == 1 else pc.struct_field(text, name[1])
                    side.append(pc.fill_null(text.cast(pa.large_string()), ""))
    except (pa.ArrowException, OSError) as error:  # ArrowInvalid, or an OSError for a page that does not decompress
        raise DataError(f"{path} is damaged or no parquet file: copy or download it again") from error
    pairs = Pairs(*(pa.chunked_array(side, pa.large_string()) for side in sides))
    for side, language in zip((pairs.source, pairs.target), (source, target)):
        _require_utf8(side, _place(path, "row", 0, (language, language)))
    return pairs


def _columns(schema: pa.Schema, source: str, target: str, path: Path) -> list[tuple[str, ...]]:
    """Where the two languages are: ("translation", "de") or ("de",), for each of them."""
    groups: dict[tuple[str, ...], dict[str, pa.DataType]] = {(): {field.name: field.type for field in schema}}
    for field in schema:
        if pa.types.is_struct(field.type):
            groups[(field.name,)] = {inner.name: inner.type for inner in field.type}
    for group, types in groups.items():
        if source in types and target in types:
            for name in (source, target):
                if not (pa.types.is_string(types[name]) or pa.types.is_large_string(types[name])):
                    raise DataError(f"{path} has {types[name]} and no text in {name!r}: it is another data set")
            return [(*group, source), (*group, target)]
    found = ", ".join(name for types in groups.values() for name in types)
    raise DataError(f"{path} has no columns {source!r} and {target!r} but {found}: name its languages, or other files")


def _read_jsonl(path: Path, source: str, target: str) -> Pairs:
    parts = []
    chunk: list[tuple[str, str]] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            chunk.append(_json_pair(line, source, target, f"{path}, line {number}"))
            if len(chunk) == CHUNK:
                parts.append(Pairs.of(chunk))
                chunk = []
    return Pairs.joined([*parts, Pairs.of(chunk)])


def _json_pair(line: bytes, source: str, target: str, where: str) -> tuple[str, str]:
    try:
        text = line.decode("utf-8-sig")
        if not text.strip():
            return "", ""  # an empty pair, as in the other layouts
        record = json.loads(text)
    except UnicodeDecodeError as error:
        raise _not_utf8(where) from error
    except (json.JSONDecodeError, RecursionError) as error:  # the second: brackets within brackets without end
        reason = getattr(error, "msg", "too deep")
        raise DataError(f"{where}, is not JSON ({reason}): each line holds one object") from error
    if isinstance(record, dict) and isinstance(record.get("translation"), dict):
        record = record["translation"]
    sides = []
    for language in (source, target):
        if not isinstance(record, dict) or language not in record:
            found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise DataError(f"{where}, has no {language!r} but {found}: name its languages, or other files")
        text = "" if record[language] is None else record[language]
        if not isinstance(text, str):
            raise DataError(f"{where}, has no text in {language!r} but {text!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # half a UTF-16 letter, escaped
            raise _not_utf8(where)
        sides.append(text)
    return sides[0], sides[1]


def _read_text(source: Path, target: Path) -> Pairs:
    sides = [_lines(source), _lines(target)]
    counts = [len(side) for side in sides]
    if counts[0] != counts[1]:
        raise DataError(
            f"{source} has {counts[0]:,} lines but {target} {counts[1]:,}: line n of one must translate line n of the "
            f"other, and from line {min(counts) + 1:,} on there is none"
        )
    return Pairs(*sides)


def _lines(path: Path) -> pa.ChunkedArray:
    """Split at line feeds alone, as all tools for parallel text do: other separators occur inside sentences."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if data and not data.endswith(b"\n"):
        data += b"\n"
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    lines = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    _require_utf8(pa.chunked_array([lines]), lambda row, _: f"{path}, line {row + 1}")
    return pa.chunked_array([pc.utf8_rtrim(lines, "\r\n")])


def _require_utf8(side: pa.ChunkedArray, place: Callable[[int, int], str]) -> None:
    try:
        side.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _not_utf8(place(next(_undecodable(side.chunks)), 0)) from error


def _undecodable(chunks: Sequence[pa.LargeStringArray]) -> Iterator[int]:
    row = 0
    for chunk in chunks:
        for text in chunk.cast(pa.large_binary()).to_pylist():
            try:
                text.decode()
            except UnicodeDecodeError:
                yield row
            row += 1


def _not_utf8(where: str) -> DataError:
    return DataError(f"{where}, is not UTF-8: convert the file, such as with `iconv -f latin1 -t utf-8`")
