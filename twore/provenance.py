"""Which code made a result."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import twore


@cache
def code_version() -> str:
    """The commit of this checkout, with "+changes" when files differ from it; the version when it is no checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return twore.__version__
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return twore.__version__


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
