"""Records of running jobs, for the progress bar and for `twore status`."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twore.study.store import Store
from twore.training import Epoch

WATCH_EVERY = 2.0  # seconds between progress records of a job


@contextmanager
def watched(store: Store, key: str, words: str, epochs: int) -> Iterator[Any]:
    """Keep a record of a running job for the progress bar and for `twore status`; gone when the job ends well."""
    last = -math.inf

    def watch(record: Epoch) -> None:
        nonlocal last
        if time.monotonic() - last > WATCH_EVERY:
            last = time.monotonic()
            now = {
                "what": words,
                "epoch": record.epoch,
                "epochs": epochs,
                "train_loss": record.train_loss,
                "rate": record.rate,
            }
            store.put("running", key, now | {"host": socket.gethostname(), "at": time.time()})

    yield watch
    store.drop("running", key)
