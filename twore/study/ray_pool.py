"""Jobs on a Ray cluster (extra: `pip install 'twore[ray]'`): workers on many machines, one driver that hands out jobs.

A worker is a Ray actor, so it lives on from job to job (a Ray task that asks for a GPU is a new process each time, and
would import torch for every one). It keeps nothing that matters: results go to the store, and the driver alone claims
jobs. So a worker or a machine may be lost at any time: its job goes to another worker, a dense run from its last epoch
on. Ray ends all workers when their driver is gone, and the same command goes on.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twore.study.outcomes import THREAD_VARIABLES, Died, TooLong
from twore.study.ray_worker import Place, RayWorker, software
from twore.study.signals import HANDLED

LOOK_EVERY = 5.0  # seconds between looks at how much room the cluster has
PATIENCE = 30.0  # seconds without any worker before it is said why; our choice: Python starts slowly from a file server
ANSWER_SECONDS = 20.0  # for a cluster's head to answer; our choice
SHOWN = 3  # kinds of machines that are named when none is large enough
STARTS = 3  # attempts to start Ray here: it gives itself 30 s, which a busy machine may exceed
STILLBORN = 5  # workers in a row that die before they begin: then something is wrong with the cluster
OBJECT_STORE = 100_000_000  # bytes, a little over the least that Ray takes: jobs and answers are small
PASSED_ON = ("TWORE_", "HF_")  # environment variables that workers share with the driver, by how they begin
SETTINGS = {  # of Ray itself, unless the environment says otherwise; a cluster that runs already has its own
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to its makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no advice on stderr
    "RAY_worker_niceness": "0",  # Ray's default of 15 is for machines with more important work
    "RAY_worker_register_timeout_seconds": "600",  # Ray's 60 is short where Python starts from a busy file server
}


@dataclass(frozen=True)
class Seat:
    """What one worker takes of the cluster."""

    cpus: int  # one a thread
    gpus: float  # a fraction where several share a GPU

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.cpus} CPU" + (f" and {self.gpus:.3g} GPU" if self.gpus else "")

    def room(self, resources: dict[str, float]) -> int:
        """How many fit on a machine with these resources."""
        by_gpu = [int(resources.get("GPU", 0.0) / self.gpus + 1e-9)] if self.gpus else []
        return min([int(resources.get("CPU", 0.0) // self.cpus), *by_gpu])


class RayPool:
    """Workers on a Ray cluster, as many as asked, or as it has room for; connected with the first job."""

    def __init__(
        self, folder: Path, *, workers: int | None, seat: Seat, address: str | None, time_limit: float | None = None
    ) -> None:
        self._ray = import_ray()
        self._folder, self._asked, self._seat, self._limit = folder, workers, seat, time_limit
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._connected = self._ours = False
        self._hands: list[_Hand] = []
        self._queue: deque[tuple[Any, Callable[..., Any], tuple]] = deque()
        self._stillborn = 0
        self._machines: list[dict[str, float]] = []
        self._looked = float("-inf")
        self._alone: float | None = None  # on the monotonic clock: since when there are jobs and no worker

    @property
    def free(self) -> int:
        """Workers without a job; one at least, so that there is always a job for the first worker that comes."""
        return max(0, max(1, sum(hand.place is not None for hand in self._hands)) - self.busy)

    @property
    def busy(self) -> int:
        """Jobs that run or wait for a worker."""
        return len(self._queue) + sum(hand.job is not None for hand in self._hands)

    @property
    def words(self) -> str:
        """Who works, for the bar."""
        places = [hand.place for hand in self._hands if hand.place is not None]
        machines = len({place.node for place in places})
        if not places:
            waiting = "" if self._alone is None else f" for {time.monotonic() - self._alone:.0f} s"
            return f"no worker{waiting or ' yet'}: each takes {self._seat.words}"
        return f"{_count(len(places), 'worker')} on {_count(machines, 'machine')}"

    @property
    def problem(self) -> str:
        """Why there has been no worker for a while: no machine is large enough, or others fill them."""
        if self._alone is None or time.monotonic() - self._alone < PATIENCE:
            return ""
        if any(self._seat.room(resources) for resources in self._machines):
            return (
                f"still waiting for a worker, which takes {self._seat.words}: machines of the Ray cluster have that, "
                "but others use it, or workers start slowly"
            )
        sizes = dict.fromkeys(_size(resources) for resources in self._machines)
        there = "; ".join(list(sizes)[:SHOWN]) or "no machine at all"
        return (
            f"no machine of the Ray cluster can hold a worker, which takes {self._seat.words} (there: {there}): "
            "waiting for one to join; a smaller --numerics.threads or more --slots a GPU need less"
        )

    def submit(self, job: Any, work: Callable[..., Any], *args: Any) -> None:
        """Give `work(*args)` to a free worker, or to the first that comes."""
        if not self._connected:
            self._ours = not self._ray.is_initialized()
            if self._ours:
                connect(self._ray, self._address, self._seat, self._asked)
            self._connected = True
        self._queue.append((job, work, args))
        self._hire()
        self._assign()

    def wait(self, timeout: float) -> list[tuple[Any, Any]]:
        """What ended, after at most `timeout` seconds. ConnectionError in a sentence when workers cannot start."""
        self._hire()
        pending = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        if pending:
            self._ray.wait(list(pending), num_returns=1, timeout=timeout)
        else:
            time.sleep(timeout)
        come, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0) if pending else ([], [])
        ended = [result for answer in come if (result := self._take(pending[answer])) is not None]
        for hand in list(self._hands):
            if hand.job is not None and self._limit is not None and time.monotonic() - hand.since > self._limit:
                ended.append((hand.job, TooLong(f"the time limit of {self._limit:g} s")))
                self._dismiss(hand)
        self._hire()
        self._assign()
        return ended

    def stop(self, *, now: bool) -> None:
        """End all workers, at once in either case: results appear whole or not at all."""
        self._queue.clear()
        for hand in list(self._hands):
            self._dismiss(hand)
        if self._ours and self._connected:
            with _kept_signals():
                self._ray.shutdown()
        self._connected = False

    def _hire(self) -> None:
        """Ask the cluster for the workers that are missing; Ray starts them as there is room."""
        if any(hand.place is not None for hand in self._hands):
            self._alone = None
        elif self._alone is None:
            self._alone = time.monotonic()
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            self._machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = max(1, sum(self._seat.room(resources) for resources in self._machines))
        while len(self._hands) < (room if self._asked is None else self._asked):
            actor = self._ray.remote(RayWorker).options(
                num_cpus=self._seat.cpus, num_gpus=self._seat.gpus, max_restarts=0, scheduling_strategy="SPREAD",
                runtime_env={"env_vars": _environment(self._seat.cpus)},
            ).remote(self._seat.cpus)  # fmt: skip
            self._hands.append(_Hand(actor, actor.begin.remote(str(self._folder), software())))

    def _assign(self) -> None:
        for hand in self._hands:
            if self._queue and hand.place is not None and hand.job is None:
                hand.job, work, args = self._queue.popleft()
                hand.since = time.monotonic()
                hand.answer = hand.actor.do.remote(work, args)

    def _take(self, hand: _Hand) -> tuple[Any, Any] | None:
        """A worker's answer: the end of its job, or None for its first sign of life or its end without a job."""
        errors = self._ray.exceptions
        try:
            value = self._ray.get(hand.answer)
        except errors.RayError as error:
            if isinstance(error, errors.RayTaskError) and hand.job is not None:  # the work raised; the worker lives
                return hand.end(Died(f"on {hand.host} raised {_sentence(error)}"))
            return self._lost(hand, error)
        if hand.place is not None:
            return hand.end(value)
        hand.place, hand.answer, self._stillborn = value, None, 0
        if value.problem is not None:
            raise ConnectionError(value.problem)
        return None

    def _lost(self, hand: _Hand, error: Exception) -> tuple[Any, Any] | None:
        self._dismiss(hand)
        if hand.place is None:
            self._stillborn += 1
            if getattr(error, "actor_init_failed", False) or self._stillborn >= STILLBORN:
                raise ConnectionError(
                    f"no worker can start on the Ray cluster at {self._address} ({_sentence(error)}): every machine "
                    "needs this Python environment"
                ) from error
        if hand.job is None:
            return None
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if hand.place is not None and hand.place.node not in alive:
            return hand.end(Died(f"on {hand.host} was lost with its machine", own=False))
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):  # what Ray says first of a lost machine
            return hand.end(Died(f"on {hand.host} was lost: its machine does not answer", own=False))
        return hand.end(Died(f"on {hand.host} died ({_sentence(error)})"))

    def _dismiss(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        with suppress(self._ray.exceptions.RayError, ValueError):  # it is gone already
            self._ray.kill(hand.actor)


class _Hand:
    """One worker, seen from the driver."""

    def __init__(self, actor: Any, answer: Any) -> None:
        self.actor, self.answer = actor, answer  # the answer that is due: of its beginning, then of its job
        self.place: Place | None = None  # once it has begun
        self.job: Any = None
        self.since = 0.0  # on the monotonic clock: when it got the job

    @property
    def host(self) -> str:
        return "a machine" if self.place is None else self.place.host

    def end(self, result: Any) -> tuple[Any, Any]:
        """Make it free; its job and the result."""
        job, self.job, self.answer = self.job, None, None
        return job, result


def import_ray() -> Any:
    """The ray module. ModuleNotFoundError in one sentence where it is not installed."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)  # read when it is imported
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--executor ray needs Ray, which is not installed: pip install 'twore[ray]'"
        ) from error
    return ray


def connect(ray: Any, address: str, seat: Seat, workers: int | None) -> None:
    """Join the cluster at `address`, or start one on this machine for "local". ConnectionError in one sentence."""
    if re.fullmatch(r"[^/]+:\d+", address):  # host:port: Ray itself would try for minutes, and say so on stderr
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            raise ConnectionError(
                f"no Ray cluster at {address} ({error}): start one with `ray start --head`"
            ) from error
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        cpus = {} if workers is None else {"num_cpus": workers * seat.cpus}
        options |= {**cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    for attempt in range(STARTS):
        try:
            with _kept_signals():
                ray.init(**options)
            return
        except Exception as error:  # noqa: BLE001  Ray raises bare ones too; every one means: no cluster
            if address == "local" and "timed out during startup" in str(error) and attempt + 1 < STARTS:
                continue  # what it has started ends with this process at the latest
            way = "the machine may be too busy" if address == "local" else "start one with `ray start --head`"
            raise ConnectionError(f"no Ray cluster at {address} ({_sentence(error)}): {way}") from error


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Ray puts its own SIGTERM handler in the place of ours."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not the main thread: no handler was set either
                signal.signal(number, handler)


def _environment(threads: int) -> dict[str, str]:
    """Of a worker: the study's thread count, and the driver's own places to import from (a task may lie in one)."""
    shared = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    installed = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    places = [Path(place).resolve() for place in sys.path]
    own = [str(place) for place in places if not any(place.is_relative_to(prefix) for prefix in installed)]
    path = os.pathsep.join([*dict.fromkeys(own), "${PYTHONPATH}"])  # Ray puts the machine's own in
    return shared | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONPATH": path}


def _sentence(error: BaseException) -> str:
    """What Ray says, cut to its first sentence that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    detail = re.search(r"exit detail: (.*)", said)
    return re.split(r"\. |\.$", detail[1] if detail else said)[0][:200]


def _size(resources: dict[str, float]) -> str:
    """What a machine has, in words."""
    return f"{resources.get('CPU', 0.0):g} CPU and {resources.get('GPU', 0.0):g} GPU"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")
