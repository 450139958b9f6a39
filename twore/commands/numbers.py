"""Numbers as people type them on the command line."""

from __future__ import annotations

import argparse


def fraction(text: str) -> float:
    """A ratio for argparse, which says what to write instead of "90%"; its range is checked with everything else."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"the fraction removed, in [0, 1), such as 0.9: got {text!r}") from error
