"""The preparation script, from folders and from a host on this machine that breaks off, resumes or lies."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twore.data import ImageSet, known_fingerprint, load_images
from twore.data.cifar import CIFAR

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "prepare_cifar10.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_cifar10", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Host(BaseHTTPRequestHandler):
    """Serves `content` with ranges; the first `breaks` answers stop half way through."""

    content = b""
    breaks = 0
    log: list[str | None] = []

    def do_GET(self) -> None:  # noqa: N802
        host = type(self)
        wanted = self.headers.get("Range")
        host.log.append(wanted)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted else 0
        body = host.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if host.breaks > 0:
            host.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch):
    """(handler class, URL) of a server on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = type("Handler", (_Host,), {"log": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}/archive.tar.gz"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(batches_folder: Path, tmp_path: Path, publish, monkeypatch) -> Path:
    """The batches in an archive that has the published name and md5."""
    publish(batches_folder / "cifar-10-batches-py")
    path = tmp_path / "archives" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(batches_folder / "cifar-10-batches-py", "cifar-10-batches-py")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(CIFAR, "cifar10", dataclasses.replace(CIFAR["cifar10"], archive_md5=md5, urls=("file:///no",)))
    return path


def equal_pixels(found: ImageSet, expected: ImageSet) -> bool:
    return np.array_equal(found.train_images, expected.train_images) and np.array_equal(
        found.test_labels, expected.test_labels
    )


def test_from_parquet_then_again(script, parquet_folder: Path, tmp_path: Path, tiny: ImageSet, capsys):
    command = ["--from", str(parquet_folder), "--out", str(tmp_path / "out")]
    assert script.main(command) == 0
    assert "20 training and 10 test images" in capsys.readouterr().out
    assert equal_pixels(load_images("cifar10", tmp_path / "out"), tiny)
    manifest = json.loads((tmp_path / "out" / "cifar10.manifest.json").read_text())
    assert (manifest["train"], manifest["test"], manifest["train_per_class"]) == (20, 10, [2] * 10)
    assert manifest["licence"] and manifest["prepared_at"] and manifest["source"].startswith("parquet")
    assert manifest["fingerprint"] == load_images("cifar10", parquet_folder).fingerprint

    before = (tmp_path / "out" / "cifar10.safetensors").stat().st_mtime_ns
    assert script.main(command) == 0
    assert capsys.readouterr().out.startswith("Already prepared")
    assert (tmp_path / "out" / "cifar10.safetensors").stat().st_mtime_ns == before
    (tmp_path / "out" / "cifar10.safetensors").write_bytes(b"damaged")
    assert script.main(command) == 0  # done means readable
    assert equal_pixels(load_images("cifar10", tmp_path / "out"), tiny)


def test_from_archive(script, archive: Path, tmp_path: Path, tiny: ImageSet):
    assert script.main(["--from", str(archive.parent), "--out", str(tmp_path / "out")]) == 0
    found = load_images("cifar10", tmp_path / "out")
    assert equal_pixels(found, tiny) and found.fingerprint == known_fingerprint("cifar10")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cifar10.manifest.json",
        "cifar10.safetensors",
    ]


def test_download_resumes_where_it_broke_off(script, archive: Path, host, tmp_path: Path, tiny: ImageSet):
    handler, url = host
    handler.content, handler.breaks = archive.read_bytes(), 1
    assert script.main(["--download", "--mirror", url, "--out", str(tmp_path / "out")]) == 0
    assert handler.log == [None, f"bytes={len(handler.content) // 2}-"]
    found = load_images("cifar10", tmp_path / "out")
    assert equal_pixels(found, tiny) and url in found.source
    assert not list((tmp_path / "out").glob("*.tar.gz*"))


def test_next_run_resumes(script, archive: Path, host, tmp_path: Path):
    handler, url = host
    handler.content, handler.breaks = archive.read_bytes(), script.ATTEMPTS
    command = ["--download", "mirror", "--mirror", url, "--out", str(tmp_path / "out")]
    assert script.main(command) == 1
    part = tmp_path / "out" / "cifar-10-python.tar.gz.part"
    assert part.stat().st_size > len(handler.content) * 0.8
    have = part.stat().st_size
    assert script.main(command) == 0
    assert handler.log[-1] == f"bytes={have}-"


def test_wrong_bytes_are_refused_and_deleted(script, archive: Path, host, tmp_path: Path, capsys):
    handler, url = host
    handler.content = archive.read_bytes()[:-1] + b"x"
    assert script.main(["--download", "mirror", "--mirror", url, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: no host gave CIFAR-10") and "not the published file" in error and "--from" in error
    assert not list((tmp_path / "out").iterdir())


def test_failed_hosts_are_named_in_one_sentence(script, archive: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: "no connection to hub")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    assert script.main(["--download", "--mirror", "nonsense", "--out", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len([line for line in errors if line.startswith("error:")]) == 1 and "Traceback" not in "".join(errors)
    for part in ("nonsense", "file:///no", "no connection to hub", "--mirror URL"):
        assert part in errors[-1]


@pytest.mark.parametrize(
    ("folder", "message"), [("absent", "is not a folder"), (".", "no CIFAR-10 in")], ids=["absent", "empty"]
)
def test_nothing_to_prepare_from(script, tmp_path: Path, capsys, folder: str, message: str):
    assert script.main(["--from", str(tmp_path / folder), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


def test_altered_archive_is_not_unpacked(script, archive: Path, tmp_path: Path, capsys):
    archive.write_bytes(archive.read_bytes() + b"x")
    assert script.main(["--from", str(archive.parent), "--out", str(tmp_path / "out")]) == 1
    assert "not the published file" in capsys.readouterr().err
