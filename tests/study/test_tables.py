"""Tables built row by row equal tables built at once."""

from __future__ import annotations

import pandas as pd

from twore.files import written
from twore.study.tables import _table

ROWS = [
    {"a": 1, "b": 0.5, "text": "x", "list": (1, 2)},
    {"a": 2, "late": 3, "flag": True, "text": "x"},
    {"a": 3, "b": 1e-7, "late": 4.5, "none": None},
]


def test_rows_one_by_one_and_all_at_once_are_the_same_table():
    order = ["text", "missing", "b", "list", "late", "flag", "none", "a"]
    built = _table(iter(ROWS), ["text", "missing"], ["a"], provenance=())
    expected = pd.DataFrame(ROWS, columns=order)
    pd.testing.assert_frame_equal(built, expected)
    assert built.to_csv(index=False) == expected.to_csv(index=False)


def test_no_rows():
    built = _table(iter([]), ["a", "b"], ["key"], provenance=("host",))
    pd.testing.assert_frame_equal(built, pd.DataFrame([], columns=["a", "b", "key", "host"]))


def test_a_table_appears_whole(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("before")
    try:
        with written(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
