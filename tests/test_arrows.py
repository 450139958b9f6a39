"""The import arrows of the design: who may know whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import twore

ROOT = Path(twore.__file__).parent
COMMON = {"files", "seeds", "provenance"}  # small modules beside the packages; they know only each other
ALLOWED = {
    "pruning": set(),
    "models": set(),
    "data": set(),
    "metrics": {"pruning"},
    "tasks": {"data", "models", "metrics", "pruning"},
    "training": {"tasks", "pruning"},  # of tasks only tasks.base
    "study": {"tasks", "training", "metrics", "pruning", "data"},
    "analysis": set(),
    "report": {"analysis"},
    "advise": {"checkpoints", "metrics", "pruning", "tasks", "training", "study", "data", "analysis", "report"},
    "checkpoints": {"pruning"},
    "export": {"pruning", "checkpoints"},
    "integrations": {"pruning", "metrics"},
    "commands": {"export", "checkpoints", "advise", "study", "recipes", "data"},
    "recipes": {"tasks", "training", "pruning", "data", "study", "report"},
    "cli": {"recipes", "study", "report", "data", "commands"},
    "files": set(),
    "seeds": set(),
    "provenance": set(),
}
NO_TORCH = ("analysis", "report")


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    own = {name.split(".")[1] for name in imports_of(path) if name.startswith("twore.")} - {part, "__version__"}
    assert own <= ALLOWED[part] | COMMON
    if part == "training":
        tasks = {name for name in imports_of(path) if name.startswith("twore.tasks")}
        assert all(name.startswith("twore.tasks.base") for name in tasks)
    if part in NO_TORCH:
        assert not {name for name in imports_of(path) if name.split(".")[0] == "torch"}


def test_every_part_is_listed():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in files()} <= set(ALLOWED)
