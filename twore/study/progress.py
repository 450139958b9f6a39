"""The progress bar of a study: cells done, time left, and where the running jobs are."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from twore.study.store import Store

SHOWN = 2  # running jobs named beside the bar
LOOK_EVERY = 0.5  # seconds


class Bar:
    """Counts cells; shows the epoch, loss and rate of running jobs; lines are printed above it."""

    def __init__(self, total: int, done: int, store: Store, *, quiet: bool) -> None:
        terminal = self._terminal = sys.stderr.isatty()
        self._store = store
        self._bar = tqdm(
            total=total, initial=done, unit="cell", disable=quiet, dynamic_ncols=terminal, smoothing=0.05,
            mininterval=0.5 if terminal else 30, maxinterval=60, file=sys.stderr,
        )  # fmt: skip
        vars(self._bar)["_time"] = time.monotonic  # tqdm's own clock may jump back, and the bar would stand still
        self._bar.start_t = self._bar.last_print_t = self._looked = time.monotonic()

    def reach(self, done: int) -> None:
        """So many cells are done by now, here and elsewhere."""
        self._bar.update(done - self._bar.n)

    def look(self) -> None:
        """Show what runs now."""
        if self._bar.disable or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
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
