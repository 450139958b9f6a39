from __future__ import annotations

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
    assert [line.split()[-2:] for line in table] == [
        ["depth=8", "data_percent=100"], ["depth=14", "data_percent=100"], ["depth=20", "data_percent=100"],
        ["depth=8", "data_percent=50"], ["depth=8", "data_percent=10"],
    ]  # fmt: skip


def test_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="results.csv"):
        summary(tmp_path)
