"""docs/advise.md is written by hand: its tables tell what the calibration's page and the calibration itself tell."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest

from twore.advise.calibration import shipped
from twore.advise.deciding import SHORTER

DOCS = Path(__file__).parents[2] / "docs"
KINDS = {"with BatchNorm": "batchnorm", "without": "outputs"}


def table(name: str, head: str) -> list[list[str]]:
    """The rows of the table of a page that begins with these cells."""
    text = (DOCS / name).read_text()
    lines = text[text.index(head) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_how_often_it_answers_and_is_right_is_that_of_the_page():
    judged = {(row[0], row[1]): row for row in table("advise-calibration.md", "| level | repair | pairs |")}
    rows = table("advise.md", "| level | takes |")
    assert rows[0][3:] == ["any", "0 %", "", "", ""] and len(rows) == 1 + len(judged)
    level = ""
    for name, _, _, network, answered, right, *points in rows[1:]:
        level = name.removeprefix("a few ").removeprefix("a ") or level
        own = judged[level, KINDS[network]]
        assert [answered, right or "–"] == [own[3], own[5].split(" (")[0]], (level, network)
        for told, exact in zip(points, own[8:10]):
            assert not told or float(told) == pytest.approx(float(exact), abs=0.0501), (level, network)


@pytest.mark.parametrize(("row", "kind"), list(enumerate(KINDS.values())))
def test_what_is_answered_is_what_the_calibration_answers(row: int, kind: str):
    _, ratios, batches, pilot, bands = table("advise.md", "| network | ratios |")[row]
    levels = shipped().repaired[kind]
    for name, about in levels.items():
        level = name.split()[0]
        fewest, most = ceil(about.checkpoints[0] / SHORTER), about.checkpoints[1]
        told = batches if level == "batches" else pilot.partition(",")[0]
        if about.has_skill:
            assert told == f"{fewest} to {most}", name
        elif level == "batches":
            assert told == "", name
        assert ratios == "{:g} to {:g}".format(*about.ratios), name
    pilots = {name: "".join(band.name[0] for band in about.bands if about.answers(band))
              for name, about in levels.items() if name != "batches"}  # fmt: skip
    words = {  # of broken, damaged, intact
        "anything": ["bdi"] * 3,
        "less than 50 % of the score": ["", "b", "b"],
    }
    assert list(pilots.values()) == words[bands]
    assert ("a pilot of 3 or more" in pilot) == (not levels["pilot of 2"].has_skill)


def test_no_level_states_more_than_is_right_as_the_guide_says_of_none():
    assert "\nMore was stated than was right: nowhere.\n" in (DOCS / "advise-calibration.md").read_text()


def test_how_near_the_line_two_levels_are():
    text = " ".join((DOCS / "advise.md").read_text().split())
    levels = shipped().repaired
    assert f"{levels['batchnorm']['batches'].least_skill:.3f} at the low end" in text
    assert f"fails by a hair (−{-levels['outputs']['pilot of 2'].least_skill:.3f}," in text
