"""The preparation script: what it leaves out, that it resumes, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from twore.data.parallel import load_corpus

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "prepare_wmt14.py"
GOOD = [("Ein Haus", "A house"), ("Ein Haus", "One house"), ("Zwei", "Two"), ("Drei", "Three"), ("Vier", "Four")]
TRAIN = [GOOD[0], ("", "Nothing"), GOOD[1], GOOD[0], ("a b c d", "x"), ("Test", "Test."), *GOOD[2:], GOOD[2]]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_wmt14", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sets = {"train": TRAIN, "validation": [("Wert", "Value"), ("e f g h i", "y")], "newstest2014": [("Test", "Test.")]}
    for name, pairs in sets.items():
        for side, language in enumerate(("de", "en")):
            path = tmp_path / "from" / f"{name}.{language}"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(pair[side] + "\n" for pair in pairs))
    return tmp_path / "from"


@pytest.fixture
def command(folder: Path, tmp_path: Path) -> list[str]:
    return ["--from", str(folder), "--out", str(tmp_path / "out"), "--max-words", "3"]


def test_what_is_left_out_is_counted(script, command, tmp_path, capsys):
    assert script.main(command) == 0
    out = capsys.readouterr().out
    assert "5 pairs of train" in out and "10 of 4,508,785 published pairs of train" in out
    corpus = load_corpus("wmt14", tmp_path / "out")
    assert list(corpus.sets["train"]) == GOOD
    assert list(corpus.sets["newstest2013"])[1] == ("e f g h i", "y")  # evaluation sets stay whole
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    train = manifest["sets"]["train"]
    assert train["left_out"] == {"empty": 1, "over-long": 1, "duplicate": 2, "in an evaluation set": 1}
    assert train["read"] == 10 == train["kept"] + sum(train["left_out"].values())
    assert set(manifest["why_left_out"]) == set(train["left_out"])
    assert manifest["fingerprint"] == corpus.fingerprint != manifest["source_fingerprint"]
    for name, file in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == file["sha256"]
    assert all("see http" in part["licence"] for part in manifest["components"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*manifest["files"], "manifest.json"])


def test_the_hubs_layout(script, command, tmp_path):
    import datasets

    script.main(command)
    table = pq.read_table(tmp_path / "out" / "test-00000-of-00001.parquet")
    assert table.to_pylist() == [{"translation": {"de": "Test", "en": "Test."}}]
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "test-00000-of-00001.parquet"), cache_dir=str(tmp_path / "hf")
    )
    assert loaded.features["translation"] == datasets.Translation(languages=["de", "en"])


def test_again_does_nothing_unless_a_file_is_damaged(script, command, tmp_path, capsys):
    script.main(command)
    path = tmp_path / "out" / "train-00000-of-00001.parquet"
    content, inode = path.read_bytes(), path.stat().st_ino
    assert script.main(command) == 0
    assert "Already prepared" in capsys.readouterr().out and path.stat().st_ino == inode
    path.write_bytes(content[:-1])
    assert script.main(command) == 0 and path.read_bytes() == content
    assert "Already prepared" not in capsys.readouterr().out
    assert script.main([*command[:-1], "0"]) == 0  # other options: over-long pairs stay
    assert len(load_corpus("wmt14", tmp_path / "out").sets["train"]) == 6


def test_an_interrupted_run_goes_on(script, command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SHARD", 2)
    write, written = script._write_shard, []

    def fail_at_third(path, pairs):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, pairs)

    monkeypatch.setattr(script, "_write_shard", fail_at_third)
    assert script.main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err and not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setattr(script, "_write_shard", lambda path, pairs: (written.append(path.name), write(path, pairs)))
    assert script.main(command) == 0
    assert len(written) == len(set(written)) == 5  # three of training text, and two: none twice
    assert list(load_corpus("wmt14", tmp_path / "out").sets["train"]) == GOOD
    assert not (tmp_path / "out" / ".progress.json").exists()


def test_progress_of_other_text_is_not_used(script, command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "SHARD", 2)
    script.main(command)
    with (folder / "train.de").open("a") as de, (folder / "train.en").open("a") as en:
        de.write("Neu\n"), en.write("New\n")
    assert script.main([*command, "--force"]) == 0
    assert list(load_corpus("wmt14", tmp_path / "out").sets["train"]) == [*GOOD, ("Neu", "New")]
    monkeypatch.setattr(script, "SHARD", 100)  # fewer files: the others go
    assert script.main([*command, "--force"]) == 0
    assert len(load_corpus("wmt14", tmp_path / "out").sets["train"]) == 6


def test_failures_are_one_sentence(script, command, folder, tmp_path, capsys, monkeypatch):
    def error(*arguments: str) -> str:
        assert script.main(list(arguments)) == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("error: ") and not any("Traceback" in line for line in lines)
        return lines[-1]

    assert "is not a folder" in error("--from", str(folder / "absent"), "--out", str(tmp_path / "out"))
    assert "is where --from reads" in error("--from", str(folder), "--out", str(folder))
    assert "0 (no limit) or more: got -1" in error(*command[:-1], "-1")
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.parquet").write_text("someone's")
    assert "not prepared here" in error("--from", str(folder), "--out", str(other))
    (folder / "newstest2014.de").unlink()
    (folder / "newstest2014.en").unlink()
    assert "have no newstest2014: add it, as test*.parquet" in error(*command)
    (folder / "train.de").write_bytes(b"\xff\n")
    assert "train.de, line 1, is not UTF-8" in error(*command)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setattr("twore.data.hub.cannot_connect", lambda _: "no connection to hub")
    assert "no connection to hub" in error("--download", "--out", str(tmp_path / "out"))
