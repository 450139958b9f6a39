"""Turn CIFAR-10 (or CIFAR-100) from anywhere into one verified file that loads in under a second.

    python data_scripts/prepare_cifar10.py --download --out DIR      # mirrors, then the official host, then the hub
    python data_scripts/prepare_cifar10.py --from FOLDER --out DIR   # the archive, its pickled batches, or parquet

It writes DIR/cifar10.safetensors and DIR/cifar10.manifest.json; then pass `--data DIR` to a recipe, or set TWORE_DATA.
The archive's and every batch's md5 must match the published ones before anything is unpacked or unpickled. A download
that broke off is resumed by the same command, and a second run sees that everything is done. On failure it prints one
sentence and exits with 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from twore.data.cifar import CIFAR, CifarSpec, check_md5, read_batches, read_folder, read_hub
from twore.data.images import DataError, ImageSet
from twore.data.prepared import is_prepared, prepared_paths, read_prepared, write_prepared

LICENCE = (
    "No licence is stated by the authors; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
    "2009 (https://www.cs.toronto.edu/~kriz/cifar.html)."
)
ATTEMPTS = 3  # at each address, each resuming where the one before broke off; our choice
TIMEOUT = 20.0  # seconds without a byte; our choice
CHUNK = 1 << 18  # bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the data set is prepared, 1 (130 when interrupted) after one sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        print(prepare(options))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the download", file=sys.stderr)
        return 130
    return 0


def prepare(options: argparse.Namespace) -> str:
    """Prepare the data set, or find it prepared; returns what to tell the user."""
    spec, out = CIFAR[options.dataset], options.out
    if is_prepared(out, spec.name) and not options.force:
        try:
            return f"Already prepared: {_in_words(spec, read_prepared(out, spec.name))}. Use --force to do it again."
        except DataError as error:
            print(f"Preparing again: {error}", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    images = _from_folder(spec, options.folder) if options.folder else _download(spec, options, out)
    manifest = write_prepared(out, spec.name, images, licence=LICENCE)
    tensors, manifest_path = prepared_paths(out, spec.name)
    return (
        f"Prepared {_in_words(spec, images)}.\nContent sha256 {manifest['content_sha256']}\n"
        f"Wrote {tensors} ({tensors.stat().st_size / 1e6:.0f} MB) and {manifest_path.name}. Use it with --data {out}"
    )


def fetch(url: str, path: Path, *, md5: str) -> None:
    """Download `url` to `path`, resuming `path`.part; the file appears only when its md5 matches.

    Raises OSError when the host fails (what came so far is kept), `DataError` when it served other bytes (deleted).
    """
    part = path.with_name(f"{path.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            _receive(url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # the part is whole, or too long
                break
            if attempt + 1 == ATTEMPTS:
                raise OSError(getattr(error, "reason", None) or error) from error
    try:
        check_md5(part, md5)
    except DataError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def _receive(url: str, part: Path) -> None:
    """Append the rest of `url` to `part`; OSError when the connection ends early."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "twore"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if have and getattr(response, "status", None) != 206:  # the host ignores ranges: from the start
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None)
        with part.open("ab" if have else "wb") as stream, bar:
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    if total is not None and have < total:
        raise OSError(f"the connection closed after {have} of {total} bytes")


def _download(spec: CifarSpec, options: argparse.Namespace, out: Path) -> ImageSet:
    """From the first address that works; `DataError` that lists why each failed."""
    archive = out / spec.archive
    failures = []
    if options.download != "hub":
        official, mirrors = spec.urls[-1:], (*options.mirror, *spec.urls[:-1])
        for url in {"mirror": mirrors, "official": official}.get(options.download, (*mirrors, *official)):
            print(f"Downloading {url}", file=sys.stderr)
            try:
                fetch(url, archive, md5=spec.archive_md5)
            except (DataError, OSError, ValueError) as error:  # ValueError: not a URL
                failures.append(f"{url}: {error}")
                continue
            images = dataclasses.replace(_from_archive(spec, archive), source=f"{spec.archive} from {url}")
            archive.unlink()  # 170 MB that the prepared file replaces
            return images
    if options.download in ("any", "hub"):
        print(f"Downloading {spec.hub} from the Hugging Face hub", file=sys.stderr)
        try:
            return read_hub(spec)
        except DataError as error:
            failures.append(str(error))
    raise DataError(
        f"no host gave {spec.title} ({'; '.join(failures)}): try again later, name another copy of {spec.archive} with "
        "--mirror URL, or fetch it in a browser and use --from FOLDER"
    )


def _from_folder(spec: CifarSpec, folder: Path) -> ImageSet:
    """From a folder that holds the archive as downloaded, or any layout that the recipes read themselves."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: --from names the one that holds {spec.archive}, batches or parquet")
    for place in (folder / spec.name, folder):
        if (place / spec.archive).is_file():
            check_md5(place / spec.archive, spec.archive_md5)
            return _from_archive(spec, place / spec.archive)
    return read_folder(spec, folder, prepared=False)


def _from_archive(spec: CifarSpec, archive: Path) -> ImageSet:
    """Unpack the published members of an archive whose md5 has matched into a temporary folder, and read them."""
    published = spec.torchvision_class()
    names = [file for file, _ in (*published.train_list, *published.test_list)] + [published.meta["filename"]]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with tarfile.open(archive) as tar:
                for name in names:  # by name, so that nothing else in an archive reaches the disk
                    member = tar.extractfile(f"{spec.batches}/{name}")
                    if member is not None:
                        (Path(temporary) / name).write_bytes(member.read())
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise DataError(f"{archive} is not the published archive: delete it and get it again") from error
        return dataclasses.replace(read_batches(spec, Path(temporary)), source=f"official archive {archive}")


def _in_words(spec: CifarSpec, images: ImageSet) -> str:
    counts = f"{len(images.train_labels):,} training and {len(images.test_labels):,} test images"
    return f"{spec.title}, {counts} in {images.classes} classes, fingerprint {images.fingerprint}, from {images.source}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Prepare CIFAR-10 or CIFAR-100: one verified file and a manifest.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="folder", type=Path, metavar="DIR", help="folder with the archive, its batches or parquet"
    )
    source.add_argument(
        "--download",
        nargs="?",
        const="any",
        choices=("any", "mirror", "official", "hub"),
        help="fetch it: from any host that works (default), only the mirrors, the official host or the hub",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to; made if missing")
    parser.add_argument("--dataset", choices=tuple(CIFAR), default="cifar10", help="default: cifar10")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL", help="another copy of the archive, tried first"
    )
    parser.add_argument("--force", action="store_true", help="prepare again even if it is done")
    return parser


if __name__ == "__main__":
    sys.exit(main())
