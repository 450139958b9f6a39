"""The progress bar of a study: cells done, time left, and where the running jobs are."""

from __future__ import annotations

import sys

from tqdm import tqdm

from twore.study.store import Store

SHOWN = 2  # running jobs named beside the bar


class Bar:
    """Counts cells; shows the epoch, loss and rate of running jobs; lines are printed above it."""

    def __init__(self, total: int, done: int, store: Store, *, quiet: bool) -> None:
        terminal = self._terminal = sys.stderr.isatty()
        self._store = store
        self._bar = tqdm(
            total=total, initial=done, unit="cell", disable=quiet, dynamic_ncols=terminal, smoothing=0.05,
            mininterval=0.5 if terminal else 30, maxinterval=60, file=sys.stderr,
        )  # fmt: skip

    def advance(self, cells: int) -> None:
        """Some cells are done."""
        self._bar.update(cells)

    def look(self) -> None:
        """Show what runs now."""
        if self._bar.disable:
            return
        parts = [
            f"{job['what'].split()[0]} {job['epoch']}/{job['epochs']} loss {job['train_loss']:.3f} {job['rate']:,.0f}/s"
            for job in list(self._store.running())[:SHOWN]
        ]
        self._bar.set_postfix_str("; ".join(parts), refresh=self._terminal)

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._bar.clear()
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
