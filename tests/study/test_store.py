from __future__ import annotations

import logging

import pytest

from twore.study.store import KINDS, Store


@pytest.mark.parametrize("kind", KINDS)
def test_put_get_keys_drop(tmp_path, kind):
    store = Store(tmp_path)
    assert store.get(kind, "abcd") is None
    assert store.keys(kind) == set()
    store.put(kind, "abcd", {"score": 1.5})
    assert store.get(kind, "abcd") == {"score": 1.5}
    assert store.keys(kind) == {"abcd"}
    store.drop(kind, "abcd")
    store.drop(kind, "abcd")
    assert store.get(kind, "abcd") is None


def test_a_broken_record_is_set_aside_and_said(tmp_path, caplog):
    store = Store(tmp_path)
    store.put("cells", "abcd", {"score": 1.5})
    path = store.path("cells", "abcd")
    path.write_text(path.read_text()[:-9])
    with caplog.at_level(logging.WARNING, "twore"):
        assert store.get("cells", "abcd") is None
    assert "abcd.json" in caplog.text
    assert not path.exists()
    assert store.keys("cells") == set()


def test_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match="checkpoints"):
        Store(tmp_path).get("cell", "abcd")


def test_two_kinds_never_share_a_file(tmp_path):
    store = Store(tmp_path)
    assert len({store.path(kind, "abcd") for kind in KINDS}) == len(KINDS)


def test_what_is_there_is_known_by_listing(tmp_path):
    store = Store(tmp_path)
    assert store.keys("cells") == set() == store.checkpoints("t")
    store.put("cells", "ab12", {"x": 1})
    store.put("failures", "cd34", {"x": 1})
    (tmp_path / "store" / "cells" / "ab" / ".ab99.json.1234.tmp").touch()
    (tmp_path / "store" / "cells" / "ab" / "ab98.json.corrupt").touch()
    assert store.keys("cells") == {"ab12"}
    assert store.keys("failures") == {"cd34"}
    for name in (
        "epoch-0004.safetensors",
        "epoch-0008.average.safetensors",
        ".epoch-0012.safetensors.12.tmp",
        "data.json",
    ):
        (tmp_path / "store" / "trajectories" / "t").mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / "trajectories" / "t" / name).touch()
    assert store.checkpoints("t") == {4}
