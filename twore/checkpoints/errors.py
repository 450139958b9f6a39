"""What is raised for a checkpoint that cannot be used as it is."""

from __future__ import annotations


class CheckpointError(ValueError):
    """One sentence that names the file, says what is wrong with it, and what to do."""
