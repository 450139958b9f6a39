"""Ctrl-C and SIGTERM (a cluster's "your time is up"): the first ends the run in good order, a second at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE = 10.0  # seconds that running jobs get to finish; our choice: clusters kill 30 s after SIGTERM
HANDLED = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """A signal stopped the run. `status` is the exit status that shells expect: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Stop:
    """Whether a signal asked to stop, and when."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the first signal
        self.twice = False
        self.at_once = True  # whether the first signal raises where the program happens to be
        self._since = 0.0

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    @property
    def overdue(self) -> bool:
        """Whether a signal came and the time of grace is over."""
        return self.asked and time.monotonic() - self._since > GRACE

    def check(self) -> None:
        """StoppedError when a signal came."""
        if self.number is not None:
            raise StoppedError(self.number)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """What happens on a signal."""
        self.twice = self.asked
        if not self.asked:
            self.number, self._since = number, time.monotonic()
            if not self.at_once:
                text = f"\nstopping: running jobs get {GRACE:g} s to finish; once more to stop at once\n"
                with suppress(OSError):  # nobody reads it
                    os.write(2, text.encode())  # print is not for handlers: it may be what was interrupted
                return
        self.check()


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Handle the signals inside the with block. A signal that is ignored (nohup) stays ignored."""
    stop, before = Stop(), {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        for number in HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
