from __future__ import annotations

import gzip

import pytest
import synthetic

from twore.report import summary


def test_one_setting(tmp_path):
    synthetic.write_run(tmp_path)
    text = summary(tmp_path)
    assert "gain over last epoch" in text
    assert "stopping early pays from" not in text


def test_several_settings_get_a_line_each(tmp_path):
    lines = summary(synthetic.write_run(tmp_path, scaling=True, dense_seeds=2)).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if "stopping early pays from" in line) + 1 :]
    words = [line.split(" at 0.97 ")[1].strip() for line in table]  # what differs from the reference, nothing else
    assert words == ["the reference", "depth=14", "depth=20", "data_percent=50", "data_percent=10"]


def test_packed_tables_are_read_too(tmp_path):
    synthetic.write_run(tmp_path)
    text = summary(tmp_path)
    for path in tmp_path.glob("*.csv"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert summary(tmp_path) == text


def test_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="results.csv"):
        summary(tmp_path)
