"""What a worker's parent and child tell each other, and what the parent does about a child that hangs."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from support.log_lines import log_text
from worker.consumer import heartbeat, watchdog
from worker.contract.errors import BrokerUnavailable
from worker.runner.parent_channel import SharedState


def in_a_child(work) -> int:
    """Exit status of a forked process that does something."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_parent_and_child_see_the_same_state():
    shared = SharedState()
    shared.beat()

    def child():
        if shared.stopping():
            return 1
        shared.stop()
        time.sleep(0.3)
        shared.beat()
        return 0

    assert in_a_child(child) == 0
    assert shared.stopping()
    assert shared.silent_seconds() < 0.3


def test_silence_grows_until_the_next_beat():
    shared = SharedState()
    assert not shared.stopping()
    assert shared.silent_seconds() > 0  # nothing was heard since the machine started
    shared.beat()
    time.sleep(0.02)

    assert 0.02 <= shared.silent_seconds() < 5


@pytest.fixture
def killed(monkeypatch):
    """Processes that were killed."""
    pids = []
    monkeypatch.setattr(watchdog.os, "kill", lambda pid, number: pids.append((pid, number)))
    monkeypatch.setattr(watchdog, "_killed", {})
    monkeypatch.setattr(watchdog.state, "active_requests", set())
    return pids


def at_work(pid: int | None, task: str = "job.0.1", *, for_seconds: float = 1e6) -> None:
    class Request(SimpleNamespace):
        __hash__ = object.__hash__

    request = Request(id=task, worker_pid=pid, accepted=time.monotonic() - for_seconds)
    watchdog.state.active_requests.add(request)


def silent_for(seconds: float):
    return SimpleNamespace(silent_seconds=lambda: seconds)


def test_a_child_that_gets_nowhere_is_killed_once_and_the_reason_kept(killed):
    at_work(4711)

    assert watchdog.look(silent_for(301), 300)
    assert not watchdog.look(silent_for(302), 300)
    assert killed == [(4711, signal.SIGKILL)]
    assert watchdog._killed == {"job.0.1": "no image ended within 300 s"}


def test_a_child_that_gets_on_or_has_no_work_is_left_alone(killed):
    assert not watchdog.look(silent_for(9999), 300)
    at_work(None)
    assert not watchdog.look(silent_for(9999), 300)
    at_work(4711, "job.0.2")
    assert not watchdog.look(silent_for(299), 300)
    assert killed == []


def test_a_child_that_had_nothing_to_do_has_all_its_time_for_the_next_chunk(killed):
    """Its last sign of life is old, and the one over the new chunk is still to come."""
    at_work(4711, for_seconds=299)
    assert not watchdog.look(silent_for(9999), 300)
    watchdog.state.active_requests.clear()
    at_work(4711, for_seconds=301)
    assert watchdog.look(silent_for(9999), 300)
    assert killed == [(4711, signal.SIGKILL)]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (
            "Worker exited prematurely: signal 9 (SIGKILL) Job: 3.",
            "killed by signal 9 (SIGKILL): out of memory, or by hand",
        ),
        ("Worker exited prematurely: signal 11 (SIGSEGV) Job: 12.", "killed by signal 11 (SIGSEGV)"),
        ("Worker exited prematurely: exitcode 3 Job: 0.", "exitcode 3"),
        ("the chunk took longer than 60 s", "the chunk took longer than 60 s"),
        ("", ""),
    ],
)
def test_what_billiard_says_is_made_readable(seen, told):
    assert watchdog.readable(seen) == told


def test_a_sign_of_life_that_fails_is_left_to_the_next(caplog):
    told = []

    def fails(worker):
        raise BrokerUnavailable("gone")

    heartbeat.beat(SimpleNamespace(beat=told.append), "worker-0@here")
    heartbeat.beat(SimpleNamespace(beat=fails), "worker-0@here")

    assert told == ["worker-0@here"]
    assert "event=heartbeat_failed gone" in log_text(caplog)


def test_presence_follows_the_connection(monkeypatch):
    beats, cancelled = [], []
    monkeypatch.setattr(heartbeat, "beat", lambda fleet, name: beats.append(name))
    link = SimpleNamespace(prefix="p:", close=lambda: None)
    monkeypatch.setattr(heartbeat, "RedisLink", lambda *args, **options: link)
    timer = SimpleNamespace(cancel=lambda: cancelled.append(1))
    calls = []
    parent = SimpleNamespace(
        app=SimpleNamespace(maskmill=SimpleNamespace(redis=None), maskmill_name="worker-0@here"),
        timer=SimpleNamespace(call_repeatedly=lambda *args: calls.append(args) or timer),
    )
    step = heartbeat.Presence(parent)

    step.start(parent)
    step.stop(parent)
    step.stop(parent)

    assert beats == ["worker-0@here"] and cancelled == [1]
    assert calls[0][0] == heartbeat.BEAT_SECONDS
