"""Every python block of README.md and docs/*.md runs, block after block of a page in one namespace, in an empty folder.

A block whose first line is `# name.py` is a file for the reader: it is written there and imported, not run as a script
(tests/test_examples.py runs the scripts).
"""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SKIP: dict[str, str] = {}  # page -> why it cannot run
SLOW = {"own_task.md", "advise.md"}  # more than a few seconds
NEEDS = {"trainer.md": "accelerate"}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+)\.py\b")


def pages() -> list:
    marks = {
        page: [pytest.mark.skip(reason=SKIP[page.name])]
        if page.name in SKIP
        else [] + ([pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
    }
    return [pytest.param(page, marks=marks[page], id=page.name) for page in PAGES if blocks(page)]


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line of the page, code) of every python block."""
    text = page.read_text()
    return [(text.count("\n", 0, found.start()) + 2, found[1]) for found in BLOCK.finditer(text)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with the results of a finished study; what is imported from it is forgotten."""
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "cifar_scaling" / "cpu" / "results.csv", tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", pages())
def test_its_code_runs(page, folder, monkeypatch):
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # classes defined on the page are found by their module
    for line, code in blocks(page):
        if name := FILE.match(code):
            (folder / f"{name[1]}.py").write_text(code)
            importlib.invalidate_caches()
            importlib.import_module(name[1])
        else:
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), vars(module))


def test_no_page_hides_its_code():
    """A fence that is spelt otherwise would never be run."""
    for page in PAGES:
        text = page.read_text()
        fences = re.findall(r"^[ \t]*``` *(?:py|python|pycon|Python)\b.*$", text, re.MULTILINE)
        assert fences == ["```python"] * len(blocks(page)), page.name
