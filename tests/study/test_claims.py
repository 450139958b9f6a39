"""Claims: at most one living holder a key, whoever races, dies, sleeps, or has a wrong clock."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from twore.study import claims as module
from twore.study.claims import Claims, Holder, this_process

NEVER = 10**9  # seconds
ELSEWHERE = Holder("other", "another-machine", 1, "1")


def dead() -> Holder:
    return replace(this_process(), pid=2**22 + 1)  # above the largest pid of Linux


def leave(folder: Path, key: str, holder: Holder) -> Path:
    """A claim that its holder never released; its file."""
    assert Claims(folder, me=holder, beat=NEVER).take(key)
    return next((folder / key).iterdir())


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of this process, in a list of one number."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_one_holder_until_it_is_released(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a")
    assert not first.take("a")
    assert not second.take("a")
    assert second.take("b")
    first.release("a")
    assert second.take("a")
    first.release("a")  # not ours: nothing happens
    assert not first.take("a")


def test_the_end_of_the_with_block_releases_all(tmp_path):
    with Claims(tmp_path) as claims:
        assert claims.take("a")
        assert claims.take("b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("holder", [dead(), replace(this_process(), start="1")], ids=["no such pid", "pid reused"])
def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path, holder):
    leave(tmp_path, "a", holder)
    taker, other = Claims(tmp_path), Claims(tmp_path)
    assert taker.take("a")
    assert not other.take("a")


def test_a_process_that_was_killed_and_not_collected_is_dead(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(NEVER,))
    process.start()
    holder = replace(this_process(), pid=process.pid, start=module._process_start(process.pid))
    leave(tmp_path, "a", holder)
    assert not Claims(tmp_path).take("a")
    os.kill(process.pid, 9)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert Claims(tmp_path).take("a")
    process.join()


def test_a_process_elsewhere_is_gone_when_its_file_stood_still(tmp_path, clock):
    path = leave(tmp_path, "a", ELSEWHERE)
    claims = Claims(tmp_path, stale_after=60)
    assert not claims.take("a")  # the first look
    clock[0] = 59
    assert not claims.take("a")
    clock[0] = 61
    assert claims.take("a")
    assert not path.exists()


@pytest.mark.parametrize("when", [0, 4 * 10**18], ids=["1970", "2096"])
def test_any_change_of_time_is_a_sign_of_life(tmp_path, clock, when):
    """The holder's clock, or the file server's, jumped: only that the time changed counts, not what it says."""
    path = leave(tmp_path, "a", ELSEWHERE)
    claims = Claims(tmp_path, stale_after=60)
    assert not claims.take("a")
    os.utime(path, ns=(when, when))
    clock[0] = 100
    assert not claims.take("a")
    clock[0] = 159
    assert not claims.take("a")
    clock[0] = 161
    assert claims.take("a")


def test_a_holder_shows_that_it_lives(tmp_path):
    with Claims(tmp_path, beat=0.01) as claims:
        assert claims.take("a")
        path = next((tmp_path / "a").iterdir())
        os.utime(path, ns=(0, 0))
        deadline = time.monotonic() + 60
        while path.stat().st_mtime_ns == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime_ns > 0


def test_a_slow_taker_does_not_hit_a_newer_claim(tmp_path, monkeypatch):
    """It saw a dead holder; before it acts, another process has taken over."""
    leave(tmp_path, "a", dead())
    quick, slow = Claims(tmp_path), Claims(tmp_path)

    def overtaken(_path):
        assert quick.take("a")
        return True

    monkeypatch.setattr(slow, "_gone", overtaken)
    assert not slow.take("a")
    monkeypatch.undo()
    assert not slow.take("a")


def test_a_holder_that_comes_back_leaves_the_new_claim_alone(tmp_path, clock):
    sleeper = Claims(tmp_path, me=ELSEWHERE, beat=NEVER)
    assert sleeper.take("a")
    claims = Claims(tmp_path)
    assert not claims.take("a")
    clock[0] = 1000
    assert claims.take("a")
    sleeper.release("a")
    assert not sleeper.take("a")
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_what_a_crash_between_two_steps_leaves_is_free(tmp_path):
    (tmp_path / "a").mkdir()
    assert Claims(tmp_path).take("a")


@pytest.mark.parametrize("left", [False, True], ids=["free", "left by the dead"])
def test_of_racing_threads_one_wins(tmp_path, left):
    rounds, racers, wins = 50, 8, []
    for number in range(rounds if left else 0):
        leave(tmp_path, str(number), dead())
    start = threading.Barrier(racers)

    def race() -> None:
        claims = Claims(tmp_path, beat=NEVER)
        for number in range(rounds):
            start.wait()
            if claims.take(str(number)):
                wins.append(number)

    threads = [threading.Thread(target=race) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == list(range(rounds))


def test_of_racing_processes_one_wins_and_what_they_release_is_free(tmp_path):
    """Each takes, gives back or keeps, and logs what it keeps; keys left by the dead are among them."""
    racers, keys = 4, 100
    for number in range(0, keys, 2):
        leave(tmp_path / "claims", str(number), dead())
    context = multiprocessing.get_context("fork")
    done = context.Barrier(racers)

    def race(me: int) -> None:
        claims = Claims(tmp_path / "claims", beat=NEVER)
        kept = []
        for number in range(keys):
            if claims.take(str(number)):
                if (number + me) % 3:
                    kept.append(number)
                else:
                    claims.release(str(number))
        (tmp_path / f"kept-{me}").write_text(" ".join(map(str, kept)))
        done.wait()  # who ends earlier is gone, and its claims are free
        os._exit(0)

    processes = [context.Process(target=race, args=(me,)) for me in range(racers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    kept = [number for me in range(racers) for number in (tmp_path / f"kept-{me}").read_text().split()]
    assert len(kept) == len(set(kept)) > keys // 3


def test_hold_waits_for_its_turn(tmp_path):
    inside, most = [], []

    def visit() -> None:
        with Claims(tmp_path, beat=NEVER).hold("a"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_clear_removes_what_the_dead_left_and_only_when_alone(tmp_path):
    leave(tmp_path, "a", dead())
    (tmp_path / f".{dead()}~0").mkdir()
    with Claims(tmp_path) as other, Claims(tmp_path) as claims:
        other.announce()
        assert claims.take("mine")
        assert not claims.clear()
        assert (tmp_path / "a").exists()
        other.__exit__(None, None, None)
        assert claims.clear()
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        assert not Claims(tmp_path).take("mine")


def test_holders_are_named_for_people(tmp_path):
    leave(tmp_path, "a", ELSEWHERE)
    assert Claims(tmp_path).holders() == {"a": "other 1"}
