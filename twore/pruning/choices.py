"""One error for every unknown name: what was given, the nearest name, and all the names there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, given: object, choices: Iterable[str]) -> ValueError:
    """The error to raise when `given` is none of `choices`, e.g. unknown("score", "magnitud", SCORES)."""
    names = list(choices)
    return ValueError(f"unknown {what} {given!r}{nearest(str(given), names)}: choose from {', '.join(names)}")


def nearest(given: str, names: Iterable[str]) -> str:
    """The words ", did you mean 'x'?" for the nearest of `names`, or nothing when none is near."""
    close = difflib.get_close_matches(given, list(names), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first `limit` names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
