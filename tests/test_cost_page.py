"""docs/cost.md against the presets: the tables on the page are those that benchmarks/cost_table.py makes now."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from twore.recipes import cifar_scaling

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cost.md"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "benchmarks" / "cost_table.py"))


def tables():
    """The tables of the page, each as its lines."""
    return re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE)


@pytest.mark.slow  # builds Transformer-base
def test_the_page_has_the_tables_that_the_script_makes(script):
    made = [script["work_table"](recipe) for recipe in script["PRESETS"]] + [script["price_table"]()]
    assert [table.strip() for table in tables()[-3:]] == made


def test_the_standard_diagram_by_hand(script):
    """16 checkpoints x 9 ratios x 3 seeds x 40 epochs and 160 dense epochs, of 50,000 images, three passes each;
    and single ones: 161 evaluations and 432 of 10,000 images, 432 readings of 50,000."""
    first = script["works"]("cifar_scaling")[0]
    assert (first.trainings, first.cells) == (1, 432)
    assert first.passes == (432 * 40 + 160) * 50_000 == 872_000_000
    single = 161 * 10_000 + 432 * 10_000 + 432 * 50_000
    padded = (432 * 40 + 160) * 782 * 64  # the last batch of an epoch counts as a whole one
    assert first.multiply_adds == pytest.approx((3 * padded + single) * 40_813_184)


def test_all_settings_add_up(script):
    *rows, whole = script["works"]("cifar_scaling")
    study = cifar_scaling.paper()
    assert whole.cells == sum(len(group.cell_keys) for t in study.trajectories for group in t.groups()) == 3_024
    assert whole.passes == sum(row.passes for row in rows)
    assert whole.multiply_adds == sum(row.multiply_adds for row in rows)


def test_dollars_by_hand(script):
    machine = script["Machine"]("mine", images=1e12, text=2e12, dollars=3.0)
    row = script["price_table"]([machine]).splitlines()[-1]
    hours = script["works"]("cifar_scaling")[0].multiply_adds / 1e12 / 3600
    assert f"| {hours:.0f} h, ${3 * hours:.0f} |" in row
