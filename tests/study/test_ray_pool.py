"""The pool of Ray workers against a Ray made by hand: who gets jobs, who is replaced, what is said. Needs no Ray."""

from __future__ import annotations

import os
import re
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from twore.study import executors, ray_pool
from twore.study.executors import make_executor
from twore.study.outcomes import Died, TooLong
from twore.study.ray_pool import RayPool, Seat
from twore.study.ray_worker import Place, find_problem, software
from twore.training import Numerics


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class ActorDiedError(RayError):
    pass


class ActorUnavailableError(RayError):
    pass


class FakeRay:
    """Just what the pool uses: answers are lists that the test fills; an empty one is not due yet."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, ActorUnavailableError=ActorUnavailableError
    )

    def __init__(self) -> None:
        self.actors: list[Any] = []
        self.killed: list[Any] = []
        self.machines = [{"NodeID": "n1", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}]
        self.down = 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.options = options
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does: it takes the handler's place

    def shutdown(self) -> None:
        self.down += 1

    def nodes(self) -> list[dict[str, Any]]:
        return self.machines

    def remote(self, _cls: type) -> Any:
        def create(_threads: int) -> Any:
            actor = SimpleNamespace(answers=[], options=self.asked)
            call = SimpleNamespace(remote=lambda *_: actor.answers.append(Answer()) or actor.answers[-1])
            actor.begin = actor.do = call
            self.actors.append(actor)
            return actor

        def options(**asked: Any) -> Any:
            self.asked = asked
            return SimpleNamespace(remote=create)

        return SimpleNamespace(options=options)

    def wait(self, answers: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [answer for answer in answers if answer.value][:num_returns], []

    def get(self, answer: Any) -> Any:
        if isinstance(answer.value[0], Exception):
            raise answer.value[0]
        return answer.value[0]

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


class Answer:
    def __init__(self) -> None:
        self.value: list[Any] = []


@pytest.fixture
def ray(monkeypatch):
    """Answers at every address."""
    fake = FakeRay()
    monkeypatch.setattr(ray_pool.socket, "create_connection", lambda *_: SimpleNamespace(close=lambda: None))
    for user in (ray_pool, executors):
        monkeypatch.setattr(user, "import_ray", lambda: fake)
    return fake


def pool_of(tmp_path, workers=2, limit=None, gpus=0.0) -> RayPool:
    return RayPool(tmp_path, workers=workers, seat=Seat(1, gpus), address="here:1", time_limit=limit)


def begin(ray, number: int, node: str = "n1", problem: str | None = None) -> None:
    ray.actors[number].answers[0].value.append(Place(f"host-{node}", node, problem))


def at_work(ray, tmp_path, limit=None) -> RayPool:
    """A pool of one worker, which has begun and does job "a"."""
    pool = pool_of(tmp_path, workers=1, limit=limit)
    pool.submit("a", len, "x")
    begin(ray, 0)
    pool.wait(0)
    return pool


def test_jobs_go_to_workers_that_have_begun(ray, tmp_path):
    pool = pool_of(tmp_path)
    assert (pool.free, pool.busy) == (1, 0)
    pool.submit("a", len, "x")
    assert (pool.free, pool.busy) == (0, 1)  # it waits for the first worker; more would wait in vain
    assert "no worker for 0 s" in pool.words
    begin(ray, 0)
    begin(ray, 1)
    assert pool.wait(0) == []
    assert (pool.free, pool.busy) == (1, 1)
    pool.submit("b", len, "y")
    assert pool.words == "2 workers on 1 machine"
    for actor in ray.actors:
        actor.answers[1].value.append(None)
    assert sorted(pool.wait(0)) == [("a", None), ("b", None)]
    assert (pool.free, pool.busy) == (2, 0)
    pool.stop(now=False)
    assert ray.killed == ray.actors
    assert ray.down == 1


def test_a_lost_machine_is_not_the_jobs_fault_and_its_worker_is_replaced(ray, tmp_path):
    pool = at_work(ray, tmp_path)
    ray.machines = [{"NodeID": "n1", "Alive": False, "Resources": {}}]
    ray.actors[0].answers[1].value.append(ActorDiedError("The actor died.\nIts node was terminated. More."))
    assert pool.wait(0) == [("a", Died("on host-n1 was lost with its machine", own=False))]
    assert len(ray.actors) == 2
    pool.submit("a", len, "x")
    begin(ray, 1)
    pool.wait(0)
    message = "The actor died.\nExit type: SYSTEM_ERROR Worker exit detail: Killed by signal 9. There are causes."
    ray.machines = [{"NodeID": "n1", "Alive": True, "Resources": {}}]
    ray.actors[1].answers[1].value.append(ActorDiedError(message))
    assert pool.wait(0) == [("a", Died("on host-n1 died (Killed by signal 9)"))]


def test_a_machine_that_ray_still_counts_but_cannot_reach_is_not_the_jobs_fault(ray, tmp_path):
    pool = at_work(ray, tmp_path)
    ray.actors[0].answers[1].value.append(ActorUnavailableError("The actor is unavailable: connection refused."))
    assert pool.wait(0) == [("a", Died("on host-n1 was lost: its machine does not answer", own=False))]
    assert ray.killed == [ray.actors[0]]  # it may live on where it is
    assert len(ray.actors) == 2


def test_a_job_over_the_time_limit_loses_its_worker(ray, tmp_path):
    pool = at_work(ray, tmp_path, limit=0.0)
    assert pool.wait(0) == [("a", TooLong("the time limit of 0 s"))]
    assert ray.killed == [ray.actors[0]]
    assert len(ray.actors) == 2


def test_a_worker_that_cannot_work_there_stops_the_run_in_one_sentence(ray, tmp_path):
    pool = pool_of(tmp_path)
    pool.submit("a", len, "x")
    begin(ray, 0, problem="the machine m does not see the run folder")
    with pytest.raises(ConnectionError, match="does not see"):
        pool.wait(0)


def test_workers_that_never_begin_stop_the_run(ray, tmp_path):
    pool = pool_of(tmp_path, workers=1)
    pool.submit("a", len, "x")
    with pytest.raises(ConnectionError, match="every machine needs this Python environment"):
        for number in range(100):
            ray.actors[number].answers[0].value.append(ActorDiedError("No module named twore"))
            pool.wait(0)
    assert len(ray.actors) == ray_pool.STILLBORN


def test_as_many_workers_as_there_is_room_for(ray, tmp_path):
    pool = pool_of(tmp_path, workers=None, gpus=0.25)
    ray.machines = [{"NodeID": f"n{i}", "Alive": i < 2, "Resources": {"CPU": 3.0, "GPU": 1.0}} for i in range(3)]
    pool.submit("a", len, "x")
    assert len(ray.actors) == 6  # three by its CPUs on each living machine, four by its GPU
    assert ray.actors[0].options["num_gpus"] == 0.25


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        ([], r"no machine of the Ray cluster can hold a worker.* \(there: no machine at all\)"),
        ([{"CPU": 8.0}, {"CPU": 8.0}], r"1 CPU and 1 GPU \(there: 8 CPU and 0 GPU\): waiting for one to join"),
        ([{"CPU": 2.0, "GPU": 1.0}], "still waiting for a worker.* others use it"),
    ],
)
def test_a_cluster_without_room_is_said_after_a_while(ray, tmp_path, monkeypatch, machines, said):
    ray.machines = [{"NodeID": "n", "Alive": True, "Resources": resources} for resources in machines]
    now = 1000.0
    monkeypatch.setattr(ray_pool.time, "monotonic", lambda: now)
    pool = pool_of(tmp_path, workers=1, gpus=1.0)
    pool.submit("a", len, "x")
    assert not pool.problem
    now += ray_pool.PATIENCE + 5
    pool.wait(0)
    assert re.search(said, pool.problem)
    assert "\n" not in pool.problem
    assert pool.words == "no worker for 35 s: each takes 1 CPU and 1 GPU"
    begin(ray, 0)
    pool.wait(0)
    pool.wait(0)
    assert not pool.problem


def test_a_cluster_that_does_not_answer_is_said_at_once(ray, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ConnectionError, match="no Ray cluster at 127.0.0.1:1 .*ray start --head") as caught:
        ray_pool.connect(ray, "127.0.0.1:1", Seat(1, 0.0), 1)
    assert "\n" not in str(caught.value)


def test_a_seat(tmp_path):
    assert Seat(2, 0.0).room({"CPU": 5.0}) == 2
    assert Seat(1, 1 / 3).room({"CPU": 8.0, "GPU": 1.0}) == 3
    assert Seat(1, 1.0).room({"CPU": 8.0}) == 0
    assert Seat(1, 0.5).words == "1 CPU and 0.5 GPU"


def test_workers_import_from_where_the_driver_does(ray, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TWORE_CACHE", "/cache")
    pool_of(tmp_path).submit("a", len, "x")
    given = ray.actors[0].options["runtime_env"]["env_vars"]
    assert given["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert not [place for place in given["PYTHONPATH"].split(os.pathsep) if place.startswith(sys.prefix)]
    assert (given["TWORE_CACHE"], given["OMP_NUM_THREADS"]) == ("/cache", "1")


def test_a_job_that_raises_keeps_its_worker(ray, tmp_path):
    pool = at_work(ray, tmp_path)
    ray.actors[0].answers[1].value.append(RayTaskError("traceback\nModuleNotFoundError: No module named 'toy'"))
    assert pool.wait(0) == [("a", Died("on host-n1 raised ModuleNotFoundError: No module named 'toy'"))]
    assert len(ray.actors) == 1
    assert pool.free == 1


def test_our_handlers_survive_and_nothing_is_printed(ray, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    pool_of(tmp_path).submit("a", len, "x")
    assert signal.getsignal(signal.SIGTERM) is before
    assert ray.options["log_to_driver"] is False


def test_slots_share_a_gpu(ray, tmp_path):
    cpu, gpu = Numerics("cpu", "float32"), Numerics("cuda", "float32")
    assert make_executor("ray", tmp_path, cpu, slots=4)._seat == Seat(1, 0.0)
    assert make_executor("ray", tmp_path, gpu)._seat == Seat(1, 1.0)
    assert make_executor("ray", tmp_path, gpu, slots=4)._seat == Seat(1, 0.25)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'twore\[ray\]'") as caught:
        ray_pool.import_ray()
    assert "\n" not in str(caught.value)


def test_what_keeps_a_worker_from_working(tmp_path):
    assert "does not see the run folder" in str(find_problem("m", tmp_path, software()))
    (tmp_path / "study.yaml").touch()
    assert "the driver other" in str(find_problem("m", tmp_path, "other"))
    assert find_problem("m", tmp_path, software()) is None
