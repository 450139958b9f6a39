"""Parallel corpora: WMT14 German-English, the embedded generated corpus, or any folder of sentence pairs.

    generated   a grammar's German-English pairs, no files (`twore.data.generated`)
    wmt14       sets train, newstest2013 (the hub's "validation") and newstest2014 ("test"); without a folder from the
                hub's `wmt/wmt14`
    other       a folder of that name; sets train, and validation and test where they are there
Folders are searched in this order: DIR/NAME/de-en, DIR/NAME, DIR/de-en, DIR. Layouts: `twore.data.corpus_files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from twore.data.corpus_files import SetFiles, find_set, read_set
from twore.data.hub import HubError, load_hub
from twore.data.images import DataError
from twore.data.pairs import Pairs, content_fingerprint

GENERATED, WMT14 = "generated", "wmt14"
HUB = "wmt/wmt14"
TRAIN = "train"
# set -> the names that its files may begin with
STEMS = {
    WMT14: {
        TRAIN: ("train",),
        "newstest2013": ("validation", "newstest2013"),
        "newstest2014": ("test", "newstest2014"),
    },
    "other": {TRAIN: ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)},
}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Sets of sentence pairs in the order of their files; every side holds text."""

    sets: Mapping[str, Pairs]
    where: str  # in words
    fingerprint: str  # of all sets' text; equal for equal text, whatever the layout
    dropped: int  # training pairs that were left out because a side was empty
    files: tuple[Path, ...]  # what was read; none for the generated corpus


def load_corpus(dataset: str, folder: Path | None, *, source: str = "de", target: str = "en") -> Corpus:
    """Read a corpus, with `source` and `target` the languages' names in it. `DataError` in one sentence."""
    if source == target:
        raise DataError(f"source and target must be two languages: got {source!r} twice")
    if dataset == GENERATED:
        return _generated(source, target)
    found = corpus_files(dataset, folder, source=source, target=target)
    if found is None:
        return _from_hub(source, target)
    sets, dropped = {}, 0
    for name, files in found.items():
        sets[name], empty = read_set(files, source, target, training=name == TRAIN)
        dropped += empty
    paths = tuple(path for files in found.values() for path in files.paths)
    where = f"{found[TRAIN].layout} files in {paths[0].parent}"
    return Corpus(sets, where, content_fingerprint(sets), dropped, paths)


def corpus_files(dataset: str, folder: Path | None, *, source: str, target: str) -> dict[str, SetFiles] | None:
    """Which files `load_corpus` would read, without reading any; None when there are none to read (generated, hub)."""
    if dataset == GENERATED or (dataset == WMT14 and folder is None):
        return None
    if folder is None:
        raise DataError(
            f"{dataset!r} is a folder of sentence pairs: name the folder it is in with --data or TWORE_DATA"
        )
    languages = [f"{source}-{target}", f"{target}-{source}"]
    inner = [place / name for place in (folder / dataset, folder) for name in (*languages, ".")]
    places = [place for place in inner if place.is_dir()]
    for place in places:
        found = {}
        for name, stems in STEMS.get(dataset, STEMS["other"]).items():
            candidates = (find_set(place, stem, source, target) for stem in stems)
            files = next((files for files in candidates if files), None)
            if files:
                found[name] = files
        if TRAIN in found:
            return found
        if found:
            raise DataError(f"{place} has {' and '.join(found)} but no training text: add train*.parquet, or its like")
    looked = " or ".join(map(str, places)) or f"{folder}, which does not exist"
    raise DataError(
        f"no {dataset} in {looked}: it needs train*.parquet, train.jsonl, or train.{source} and train.{target}"
        + (", such as data_scripts/prepare_wmt14.py writes" if dataset == WMT14 else "")
    )


def _generated(source: str, target: str) -> Corpus:
    from twore.data.generated import GENERATED_FINGERPRINT, generated_corpus

    if {source, target} != {"de", "en"}:
        raise DataError(f"the generated corpus is in 'de' and 'en': got {source!r} and {target!r}")
    swap = source == "en"
    sets = {
        name: Pairs.of((english, german) if swap else (german, english) for german, english in pairs)
        for name, pairs in generated_corpus().items()
    }
    return Corpus(sets, "the generated corpus", GENERATED_FINGERPRINT, 0, ())


def _from_hub(source: str, target: str) -> Corpus:
    if "en" not in (source, target):
        raise DataError(f"WMT14 translates from or to English: got {source!r} and {target!r}")
    configuration = f"{source if target == 'en' else target}-en"
    try:
        parts = load_hub(HUB, configuration, title=f"WMT14 {configuration}")
    except HubError as error:
        raise DataError(
            f"{error}: name a folder that has it with --data DIR or TWORE_DATA, or use dataset={GENERATED!r}, which "
            "needs none"
        ) from error
    sets, dropped, paths = {}, 0, []
    for name, stems in STEMS[WMT14].items():
        part = parts[stems[0]]
        pairs, empty = _from_table(part.with_format("arrow")[:], source, target)
        if empty and name != TRAIN:
            raise DataError(f"{name} of {HUB} on the hub has {empty} empty sentences: use another copy with --data")
        sets[name], dropped = pairs, dropped + empty
        paths += [Path(file["filename"]) for file in part.cache_files]
    where = f"{HUB} {configuration} on the Hugging Face hub"
    return Corpus(sets, where, content_fingerprint(sets), dropped, tuple(paths))


def _from_table(table: pa.Table, source: str, target: str) -> tuple[Pairs, int]:
    column = table.column("translation")
    sides = (pc.fill_null(pc.struct_field(column, name).cast(pa.large_string()), "") for name in (source, target))
    pairs = Pairs(*sides)
    empty = pairs.empty()
    either = empty[0] | empty[1]
    return pairs.take((~either).nonzero()[0]), int(either.sum())
