"""A mistake of the user, said in one line."""

from __future__ import annotations

import sys


def problem(error: Exception) -> int:
    """Print the first line of what was raised, and return the exit status of a wrong command."""
    print(f"twore: {str(error).splitlines()[0]}", file=sys.stderr)
    return 2
