"""The progress bar of a study, all workers in one: cells done, time left, cells an hour, where the running jobs are."""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import Any

from tqdm import tqdm

from twore.study.store import Store

SHOWN = 2  # running jobs named beside the bar
LOOK_EVERY = 0.5  # seconds
SHAPE = "{l_bar}{bar}| {n_fmt}/{total_fmt} cells [{elapsed}<{remaining}, {an_hour}{postfix}]"


class _Cells(tqdm):
    """tqdm with a rate an hour."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar shows."""
        known = super().format_dict
        rate = known["rate"] or (known["n"] - known["initial"]) / max(known["elapsed"], 1e-9)
        return {**known, "an_hour": f"{3600 * rate:,.0f} cells/h" if rate else "? cells/h"}


class Bar:
    """Counts cells; shows the epoch, loss and rate of running jobs; lines are printed above it."""

    def __init__(self, total: int, done: int, store: Store, *, quiet: bool) -> None:
        terminal = self._terminal = sys.stderr.isatty()
        self._store = store
        self._bar = _Cells(
            total=total, initial=done, bar_format=SHAPE, disable=quiet, dynamic_ncols=terminal, smoothing=0.05,
            mininterval=0.5 if terminal else 30, maxinterval=60, file=sys.stderr,
        )  # fmt: skip
        vars(self._bar)["_time"] = time.monotonic  # tqdm's own clock may jump back, and the bar would stand still
        self._bar.start_t = self._bar.last_print_t = self._looked = time.monotonic()

    def reach(self, done: int) -> None:
        """So many cells are done by now, here and elsewhere."""
        self._bar.update(done - self._bar.n)

    def look(self, words: str = "") -> None:
        """Show what runs now, after `words` about who works."""
        if self._bar.disable or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        parts = [
            f"{job['what'].split()[0]} {job['epoch']}/{job['epochs']} loss {job['train_loss']:.3f} {job['rate']:,.0f}/s"
            for job in islice(self._store.running(), SHOWN)
        ]
        self._bar.set_postfix_str("; ".join([words] * bool(words) + parts), refresh=self._terminal)

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._bar.clear()
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
