"""Turn WMT14 German-English from anywhere into verified, ready-to-train parquet with a manifest.

    python data_scripts/prepare_wmt14.py --download --out DIR      # wmt/wmt14 of the Hugging Face hub
    python data_scripts/prepare_wmt14.py --from FOLDER --out DIR   # parquet, jsonl or pairs of text files

It writes DIR/train-*.parquet, validation-*.parquet (newstest2013) and test-*.parquet (newstest2014) in the layout of
the hub, then DIR/manifest.json; pass `--data DIR` to a recipe, or set TWORE_DATA. Training pairs that are empty,
over-long, duplicate or part of an evaluation set are left out and counted; evaluation sets stay whole. The same command
resumes: files that are done and match their checksum are not written again. All of WMT14 (4.5 million pairs) needs
about 5 GB of memory. On failure it prints one sentence and exits with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from twore.data.images import DataError
from twore.data.pairs import Pairs, content_fingerprint
from twore.data.parallel import TRAIN, WMT14, Corpus, load_corpus
from twore.files import CorruptFileError, read_record, write_record, write_text

HUB = "the Hugging Face hub"
LANGUAGES = ("de", "en")
STEMS = {TRAIN: "train", "newstest2013": "validation", "newstest2014": "test"}  # the hub's names
PUBLISHED = {TRAIN: 4_508_785, "newstest2013": 3_000, "newstest2014": 3_003}  # pairs of wmt/wmt14 de-en
MAX_WORDS = 250  # between white space, a side; our choice: longer ones are lists and tables, and cost much memory
SHARD = 500_000  # pairs a file; our choice
MANIFEST, PROGRESS = "manifest.json", ".progress.json"
SEE = "https://www.statmt.org/wmt14/translation-task.html"
COMPONENTS = [
    {
        "name": "Europarl v7",
        "part": "train",
        "licence": "none stated by its makers; see https://www.statmt.org/europarl/",
    },
    {"name": "Common Crawl corpus", "part": "train", "licence": "see https://commoncrawl.org/terms-of-use"},
    {"name": "News Commentary v9", "part": "train", "licence": f"see {SEE}"},
    {"name": "newstest2013", "part": "validation", "licence": f"for research; see {SEE}"},
    {"name": "newstest2014", "part": "test", "licence": f"for research; see {SEE}"},
]
WHY = {
    "empty": "a side without text teaches nothing",
    "over-long": "more white-space separated words on a side than max_words",
    "duplicate": "the same pair occurs earlier",
    "in an evaluation set": "the pair is part of newstest2013 or newstest2014",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the data are prepared, 1 (130 when interrupted) after one sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        print(prepare(options))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def prepare(options: argparse.Namespace) -> str:
    """Prepare the corpus, or find it prepared; returns what to tell the user."""
    out: Path = options.out
    if options.folder is not None and not options.folder.is_dir():
        raise DataError(f"{options.folder} is not a folder: --from names the one that holds the sentence pairs")
    asked = str(options.folder.resolve()) if options.folder else HUB
    if not options.force and (manifest := _finished(out, options.max_words)):
        if manifest.get("asked", asked) != asked:
            before = manifest["asked"]
            raise DataError(f"{out} holds what was prepared from {before}: name another --out, or use --force")
        return f"Already prepared: {_in_words(manifest)}. Use --force to do it again."
    if options.max_words < 0:
        raise DataError(f"--max-words is 0 (no limit) or more: got {options.max_words}")
    if options.folder is not None and out.resolve() in (options.folder.resolve(), options.folder.resolve() / WMT14):
        raise DataError(f"--out {out} is where --from reads: name another folder to write to")
    _require_ours(out)
    print("Reading", options.folder or HUB, file=sys.stderr)
    corpus = load_corpus(WMT14, options.folder, source=LANGUAGES[0], target=LANGUAGES[1])
    for name in STEMS:
        if name not in corpus.sets:
            raise DataError(f"{corpus.where} have no {name}: add it, as {STEMS[name]}*.parquet or its like")
    sets, dropped = clean(corpus, options.max_words)
    files = _write_all(sets, out, {"from": corpus.fingerprint, "max_words": options.max_words})
    manifest = {
        "name": "WMT14 German-English",
        "source": corpus.where,
        "asked": asked,
        "source_fingerprint": corpus.fingerprint,
        "fingerprint": content_fingerprint(sets),
        "max_words": options.max_words,
        "sets": {name: _counts(name, corpus, pairs, dropped) for name, pairs in sets.items()},
        "why_left_out": WHY,
        "files": files,
        "components": COMPONENTS,
        "licence": "that of each component, as far as known; files of your own may hold other text than published",
        "prepared_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(out / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    (out / PROGRESS).unlink(missing_ok=True)
    return f"Prepared {_in_words(manifest)}.\nWrote {len(files)} files and {MANIFEST}. Use them with --data {out}"


def clean(corpus: Corpus, max_words: int) -> tuple[dict[str, Pairs], dict[str, int]]:
    """(the sets, training text without what `WHY` names, how many pairs each reason took). max_words=0: no limit."""
    train = corpus.sets[TRAIN]
    evaluated = [pairs for name, pairs in corpus.sets.items() if name != TRAIN]
    dropped = {"empty": corpus.dropped}

    def keep(reason: str, rows: np.ndarray) -> Pairs:
        dropped[reason] = len(train) - len(rows)
        return train.take(rows)

    train = keep("over-long", np.flatnonzero(train.words() <= max_words) if max_words else np.arange(len(train)))
    train = keep("duplicate", train.first_of_each())
    before = sum(map(len, evaluated))
    first = Pairs.joined([*evaluated, train]).first_of_each()
    train = keep("in an evaluation set", first[first >= before] - before)
    if not len(train):
        raise DataError(f"no training pair of {corpus.where} is left: raise --max-words")
    return {**corpus.sets, TRAIN: train}, dropped


def _write_all(sets: dict[str, Pairs], out: Path, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write every file that an earlier run of the same job has not; name -> its rows, bytes and SHA-256."""
    plan = {}
    for name, pairs in sets.items():
        shards = -(-len(pairs) // SHARD)
        for i in range(shards):
            plan[f"{STEMS[name]}-{i:05d}-of-{shards:05d}.parquet"] = pairs[i * SHARD : (i + 1) * SHARD]
    out.mkdir(parents=True, exist_ok=True)
    done = _progress(out, job)
    (out / MANIFEST).unlink(missing_ok=True)  # a manifest is of finished files
    for path in _parquet_of(out):
        if path.name not in done or path.name not in plan:
            path.unlink()
    files = {}
    with tqdm(total=sum(map(len, plan.values())), unit="pairs", unit_scale=True, disable=None) as bar:
        for file, pairs in plan.items():
            if file not in done or done[file]["sha256"] != _sha256(out / file):
                _write_shard(out / file, pairs)
            files[file] = {"rows": len(pairs), "bytes": (out / file).stat().st_size, "sha256": _sha256(out / file)}
            write_record(out / PROGRESS, {"job": job, "files": files})
            bar.update(len(pairs))
    return files


def _write_shard(path: Path, pairs: Pairs) -> None:
    """One file, whole or not at all, in the hub's layout: a struct column `translation`."""
    sides = [side.combine_chunks().cast(pa.string()) for side in (pairs.source, pairs.target)]
    features = {"translation": {"_type": "Translation", "languages": list(LANGUAGES)}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}  # so that `datasets` knows the column
    table = pa.table({"translation": pa.StructArray.from_arrays(sides, list(LANGUAGES))}).replace_schema_metadata(about)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        pq.write_table(table, temporary, row_group_size=100_000, write_page_checksum=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _finished(out: Path, max_words: int) -> dict[str, Any] | None:
    """The manifest when every file in it is intact and it was made with these options."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        intact = all(_sha256(out / name) == file["sha256"] for name, file in manifest["files"].items())
        return manifest if intact and manifest["max_words"] == max_words else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _progress(out: Path, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    try:
        record = read_record(out / PROGRESS)
        return record["files"] if record["job"] == job else {}
    except (FileNotFoundError, CorruptFileError):
        return {}


def _require_ours(out: Path) -> None:
    if _parquet_of(out) and not (out / MANIFEST).exists() and not (out / PROGRESS).exists():
        raise DataError(f"{out} holds parquet files that were not prepared here: name an empty folder with --out")


def _parquet_of(out: Path) -> list[Path]:
    return sorted(path for stem in STEMS.values() for path in out.glob(f"{stem}*.parquet"))


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _counts(name: str, corpus: Corpus, kept: Pairs, dropped: dict[str, int]) -> dict[str, Any]:
    read = len(corpus.sets[name]) + (corpus.dropped if name == TRAIN else 0)
    left_out = dropped if name == TRAIN else {}
    return {"read": read, "published": PUBLISHED[name], "left_out": left_out, "kept": len(kept)}


def _in_words(manifest: dict[str, Any]) -> str:
    sets = ", ".join(f"{counts['kept']:,} pairs of {name}" for name, counts in manifest["sets"].items())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest["sets"][TRAIN]["left_out"].items())
    parts = [
        f"{counts['read']:,} of {counts['published']:,} published pairs of {name}"
        for name, counts in manifest["sets"].items()
        if counts["read"] != counts["published"]
    ]
    note = f"; the source is not the published WMT14: it has {', '.join(parts)}" if parts else ""
    return f"{sets} (left out of training text: {reasons}) from {manifest['source']}{note}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Prepare WMT14 German-English: verified parquet and a manifest.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="folder", type=Path, metavar="DIR", help="folder with parquet, jsonl or text files"
    )
    source.add_argument("--download", action="store_true", help="fetch it from the Hugging Face hub")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to; made if missing")
    parser.add_argument(
        "--max-words", type=int, default=MAX_WORDS, metavar="N",
        help=f"leave out training pairs with more words a side; 0: none (default: {MAX_WORDS})",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="prepare again even if it is done")
    return parser


if __name__ == "__main__":
    sys.exit(main())
