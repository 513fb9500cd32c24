"""The channel between a worker's parent and its model process, the watchdog and the heartbeat."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest
from celery.worker.consumer import Consumer

from support.log_lines import log_text
from worker.consumer import heartbeat, watchdog
from worker.contract.errors import BrokerUnavailable
from worker.contract.settings import Settings
from worker.runner.parent_channel import ParentChannel


def in_a_fork(work) -> int:
    """Return the exit status of a forked process that calls `work`."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_parent_and_model_process_see_the_same_state():
    channel = ParentChannel()
    channel.record_progress()

    def model_process():
        if channel.stopping():
            return 1
        channel.stop()
        time.sleep(0.3)
        channel.record_progress()
        return 0

    assert in_a_fork(model_process) == 0
    assert channel.stopping()
    assert channel.seconds_since_progress() < 0.3


def test_the_time_without_progress_grows_until_the_next_progress():
    channel = ParentChannel()
    assert not channel.stopping()
    assert channel.seconds_since_progress() > 0  # no progress since the machine started
    channel.record_progress()
    time.sleep(0.02)

    assert 0.02 <= channel.seconds_since_progress() < 5


@pytest.fixture
def killed(monkeypatch):
    """Return the list of killed processes, each with the signal."""
    pids = []
    monkeypatch.setattr(watchdog.os, "kill", lambda pid, number: pids.append((pid, number)))
    monkeypatch.setattr(watchdog, "_killed", {})
    monkeypatch.setattr(watchdog.state, "active_requests", set())
    return pids


def running(pid: int | None, task: str = "job.0.1", *, for_seconds: float = 1e6) -> None:
    class Request(SimpleNamespace):
        __hash__ = object.__hash__

    request = Request(id=task, worker_pid=pid, accepted=time.monotonic() - for_seconds)
    watchdog.state.active_requests.add(request)


def without_progress_for(seconds: float):
    return SimpleNamespace(seconds_since_progress=lambda: seconds)


def test_a_model_process_without_progress_is_killed_once_and_the_reason_is_kept(killed):
    running(4711)

    assert watchdog.kill_if_stuck(without_progress_for(301), 300)
    assert not watchdog.kill_if_stuck(without_progress_for(302), 300)
    assert killed == [(4711, signal.SIGKILL)]
    assert watchdog._killed == {"job.0.1": "no image ended within 300 s"}


def test_a_model_process_that_ends_by_itself_meanwhile_counts_as_killed(killed, monkeypatch):
    """The error would leave the timer: Celery would take it for a lost connection, and connect again."""

    def kill(pid, number):
        raise ProcessLookupError

    monkeypatch.setattr(watchdog.os, "kill", kill)
    running(4711)

    assert watchdog.kill_if_stuck(without_progress_for(301), 300)


def test_a_model_process_with_progress_or_without_a_chunk_is_left_alone(killed):
    assert not watchdog.kill_if_stuck(without_progress_for(9999), 300)
    running(None)
    assert not watchdog.kill_if_stuck(without_progress_for(9999), 300)
    running(4711, "job.0.2")
    assert not watchdog.kill_if_stuck(without_progress_for(299), 300)
    assert killed == []


def test_an_idle_model_process_has_all_its_time_for_the_next_chunk(killed):
    """Its last progress is old, and it has made none with the new chunk yet."""
    running(4711, for_seconds=299)
    assert not watchdog.kill_if_stuck(without_progress_for(9999), 300)
    watchdog.state.active_requests.clear()
    running(4711, for_seconds=301)
    assert watchdog.kill_if_stuck(without_progress_for(9999), 300)
    assert killed == [(4711, signal.SIGKILL)]


@pytest.fixture
def waiting(monkeypatch) -> SimpleNamespace:
    """A chunk that the parent has had for 400 s, and that its idle model process has not started."""
    request = SimpleNamespace(id="job.0.1", worker_pid=None, received=time.monotonic() - 400)
    monkeypatch.setattr(watchdog.state, "reserved_requests", [request])
    monkeypatch.setattr(watchdog, "active_children", lambda: [SimpleNamespace(pid=4711)])
    monkeypatch.setattr(watchdog, "_killed_at", float("-inf"))
    return request


def idle(*, for_seconds: float = 9999, loading: bool = False):
    return SimpleNamespace(seconds_since_progress=lambda: for_seconds, loading=lambda: loading)


def test_an_idle_model_process_that_does_not_start_a_chunk_is_killed_once(killed, waiting, caplog):
    assert watchdog.kill_if_stuck(idle(), 300)
    assert not watchdog.kill_if_stuck(idle(), 300)  # the next one may not have come so far yet

    assert killed == [(4711, signal.SIGKILL)]
    assert "did not start a chunk within 300 s" in log_text(caplog)


def test_a_chunk_may_wait_while_the_network_loads_or_others_run(killed, waiting):
    assert not watchdog.kill_if_stuck(idle(loading=True), 300)
    assert not watchdog.kill_if_stuck(idle(for_seconds=299), 300)
    waiting.received = time.monotonic() - 299
    assert not watchdog.kill_if_stuck(idle(), 300)
    waiting.received, waiting.worker_pid = 0.0, 4711  # it has started it
    assert not watchdog.kill_if_stuck(idle(), 300)

    assert killed == []


def test_a_worker_whose_network_is_never_ready_stops_and_says_why(killed, monkeypatch, caplog):
    reported = []
    monkeypatch.setattr(watchdog, "report_failure", lambda redis, name, error: reported.append((name, error.code)))
    monkeypatch.setattr(watchdog, "active_children", lambda: [SimpleNamespace(pid=4711)])
    app, channel = consumer().app, without_progress_for(watchdog.COMPILE_SECONDS + 1)
    for compiling in (False, True):  # while it is fetched, and while it is compiled
        channel.compiling = lambda compiling=compiling: compiling
        assert killed == reported == []
        watchdog._check(app, channel, 300)

    assert killed == [(4711, signal.SIGKILL), (os.getpid(), signal.SIGTERM)]
    assert reported == [("worker-0@here", "bundle")]
    assert "was not ready within 1800 s" in log_text(caplog)


@pytest.mark.parametrize(
    ("seen", "readable"),
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
def test_the_text_of_billiard_is_made_readable(seen, readable):
    assert watchdog.readable(seen) == readable


def test_after_a_failed_heartbeat_the_next_one_follows(caplog):
    sent = []

    def fails(worker):
        raise BrokerUnavailable("gone")

    heartbeat.send_heartbeat(SimpleNamespace(heartbeat=sent.append), "worker-0@here")
    heartbeat.send_heartbeat(SimpleNamespace(heartbeat=fails), "worker-0@here")

    assert sent == ["worker-0@here"]
    assert "event=heartbeat_failed gone" in log_text(caplog)


def consumer(**redis) -> SimpleNamespace:
    """Return what the bootstep needs from Celery's consumer; `entries` are its running timers."""
    entries = []

    def call_repeatedly(*entry):
        entries.append(entry)
        return SimpleNamespace(cancel=entries.clear)

    app = SimpleNamespace(
        maskmill=Settings(redis=redis), maskmill_name="worker-0@here", maskmill_parent_channel=ParentChannel()
    )
    return SimpleNamespace(app=app, timer=SimpleNamespace(call_repeatedly=call_repeatedly), entries=entries, steps=[])


@pytest.fixture
def sent(monkeypatch) -> list[tuple[str, str]]:
    """What is sent to the fleet: kind and worker."""
    sent = []
    for kind in ("heartbeat", "deregister"):
        monkeypatch.setattr(heartbeat.Fleet, kind, lambda self, worker, kind=kind: sent.append((kind, worker)))
    return sent


def test_heartbeats_follow_the_connection(sent):
    parent = consumer()
    step = heartbeat.Heartbeat(parent)

    step.start(parent)
    assert [entry[0] for entry in parent.entries] == [heartbeat.HEARTBEAT_SECONDS]
    step.stop(parent)
    step.stop(parent)

    assert sent == [("heartbeat", "worker-0@here")] and parent.entries == []


def test_a_worker_deregisters_when_its_consumer_shuts_down_and_not_when_the_connection_is_lost(sent):
    parent, blueprint = consumer(), Consumer.Blueprint()
    parent.steps.append(heartbeat.Heartbeat(parent))
    for _ in range(2):
        parent.steps[0].start(parent)
        blueprint.restart(parent)  # as Celery does after a lost connection
    assert sent == [("heartbeat", "worker-0@here")] * 2

    blueprint.shutdown(parent)  # as Celery does at the end, once

    assert sent[2:] == [("deregister", "worker-0@here")]


def test_a_redis_that_is_down_costs_a_stopping_worker_one_log_line(caplog):
    parent = consumer(url="redis://127.0.0.1:1/0")

    heartbeat.Heartbeat(parent).shutdown(parent)

    [entry] = caplog.records
    assert (entry.levelname, entry.event) == ("WARNING", "deregister_failed")
