from __future__ import annotations

import itertools
import socket
import threading
import time
import urllib.request
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

from support.commands import wait_for
from worker.contract import settings
from worker.contract.errors import CredentialsRefused, SetupError
from worker.steward import process
from worker.steward.http_endpoint import HttpEndpoint


def test_no_role_is_running_when_the_port_of_the_metrics_is_taken(monkeypatch):
    """The connections are closed on exit, and a thread in the middle of a call would end with a traceback."""
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(process.Role, "start", lambda role: pytest.fail("a role was started"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MASKMILL_METRICS__PORT", str(taken.getsockname()[1]))

        with pytest.raises(SetupError, match="MASKMILL_METRICS__PORT"):
            process.run(settings.load())


class Always:
    """A lock without other candidates."""

    def __init__(self, *_: object) -> None:
        pass

    def hold(self) -> bool:
        return True

    def resign(self) -> None:
        pass


@pytest.fixture
def role_of(monkeypatch):
    """Return a factory of roles that lead; they are stopped at the end of the test."""
    monkeypatch.setattr("worker.steward.role.Leadership", Always)
    monkeypatch.setenv("MASKMILL_ENGINE__LEADER_SECONDS", "1")  # a fifth of it passes between two looks at the lock
    made: list[process.Role] = []

    def make(work, seconds: float = 0.02, **options) -> process.Role:
        made.append(process.Role("feed", settings.load(), work, seconds, Mock(), **options))
        made[-1].start()
        return made[-1]

    yield make
    for role in made:
        role.stop()
        role.join()


def pauses_of(role_of, quiet, count: int) -> list[float]:
    """Return the pauses between two calls of the work, in units of the pause that was asked for."""
    times: list[float] = []

    def work() -> bool:
        times.append(time.monotonic())
        return quiet(len(times))

    role_of(work, 0.05)
    wait_for(lambda: len(times) >= count, "calls", 20)
    return [(later - earlier) / 0.05 for earlier, later in itertools.pairwise(times[:count])]


def test_pauses_without_work_grow_up_to_a_bound(role_of):
    pauses = pauses_of(role_of, lambda _: True, 6)

    assert pauses[0] >= 2 and all(pause >= 4 for pause in pauses[1:])
    assert min(pauses[1:]) < 8  # and not further


def test_work_shortens_the_pauses_again(role_of):
    pauses = pauses_of(role_of, lambda number: number < 4, 8)

    assert pauses[2] >= 4 and min(pauses[3:]) < 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_role_that_ends_by_an_exception_reports_it(role_of):
    reported = threading.Event()

    def work() -> bool:
        raise SystemExit

    role = role_of(work, on_defect=reported.set)

    assert reported.wait(10) and not role.running


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(24, "Too many open files"), MemoryError()], ids=repr)
def test_a_role_survives_every_exception_and_gives_its_lock_to_another_node(role_of, monkeypatch, error):
    monkeypatch.setattr("worker.steward.role._ERROR_PAUSE_SECONDS", 0.01)
    resigned, calls = threading.Event(), []
    monkeypatch.setattr(Always, "resign", lambda self: resigned.set())

    def work() -> bool:
        calls.append(1)
        raise error

    role = role_of(work)

    wait_for(lambda: resigned.is_set() and not role.leads, "the role to be given up", 20)
    assert role.running and len(calls) >= 3


def test_a_role_works_again_after_an_exception(role_of, monkeypatch):
    monkeypatch.setattr("worker.steward.role._ERROR_PAUSE_SECONDS", 0.01)
    calls = []

    def work() -> bool:
        calls.append(1)
        if len(calls) < 3:
            raise ZeroDivisionError
        return True

    role = role_of(work)

    wait_for(lambda: len(calls) > 4, "calls after the exception", 20)
    assert role.running and role.leads


def test_a_lock_that_cannot_be_asked_for_ends_nothing(role_of, monkeypatch):
    asked = []

    def hold(self) -> bool:
        asked.append(1)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Always, "hold", hold)

    role = role_of(lambda: True)

    wait_for(lambda: asked, "the lock to be asked for", 20)
    assert role.running and not role.leads


@pytest.mark.parametrize("name", ["metrics", "healthz"])
def test_an_endpoint_closes_without_waiting_for_its_poll_interval(name):
    endpoint = HttpEndpoint(settings.load().metrics, CollectorRegistry(), healthy=lambda: True, ready=lambda: True)
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/{name}", timeout=10) as answer:
        assert answer.status == 200
    began = time.monotonic()

    endpoint.close()

    assert time.monotonic() - began < 30
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/{name}", timeout=10)


def test_a_node_that_s3_refuses_gives_its_role_to_another(role_of, monkeypatch):
    resigned = []
    monkeypatch.setattr(Always, "resign", lambda self: resigned.append(1))

    def refused() -> bool:
        raise CredentialsRefused("wrong key")

    role = role_of(refused)

    wait_for(lambda: resigned and not role.leads, "the role to be given up", 20)
    assert role.running
