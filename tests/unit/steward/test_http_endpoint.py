"""The metrics server: a bound on connections and on their time, and an answer whatever fails behind it."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

from support.commands import wait_for
from support.loopback import connect_in_turn
from worker.contract import settings
from worker.contract.errors import BrokerUnavailable, ServiceError
from worker.steward import http_endpoint
from worker.steward.fleet_metrics import FleetCollector
from worker.steward.http_endpoint import HttpEndpoint


@pytest.fixture
def endpoint() -> Iterator[HttpEndpoint]:
    made = HttpEndpoint(settings.load().metrics, CollectorRegistry(), healthy=lambda: True, ready=lambda: True)
    yield made
    made.close()


def connect(endpoint: HttpEndpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.port), timeout=30)


def hung_up(client: socket.socket) -> bool:
    """Wait until the server ends the connection; False if it does not."""
    try:
        return client.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def healthy(endpoint: HttpEndpoint) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/healthz", timeout=30) as answer:
        return bool(answer.status == 200)


def test_one_connection_too_many_ends_the_oldest(endpoint, monkeypatch):
    monkeypatch.setattr(http_endpoint, "_SECONDS", 600)
    monkeypatch.setattr(http_endpoint._Handler, "timeout", 600)
    clients = connect_in_turn(endpoint.port, http_endpoint._CONNECTIONS + 3)

    assert all(map(hung_up, clients[:3]))
    assert healthy(endpoint)  # ends one more
    assert len(endpoint._server._open) <= http_endpoint._CONNECTIONS
    for client in clients:
        client.close()


def test_a_client_that_drips_is_ended_after_the_whole_time(monkeypatch):
    """Not after a time without a byte, which it could renew for ever."""
    monkeypatch.setattr(http_endpoint, "_SECONDS", 1.0)
    endpoint = HttpEndpoint(settings.load().metrics, CollectorRegistry(), healthy=lambda: True, ready=lambda: True)
    with connect(endpoint) as client:
        end = threading.Event()

        def drip() -> None:
            while not end.wait(0.05):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert hung_up(client)
        end.set()
        dripping.join()
    endpoint.close()


def test_connections_leave_nothing_behind(endpoint, monkeypatch):
    monkeypatch.setattr(http_endpoint, "_SECONDS", 600)
    before = threading.active_count()
    for _ in range(50):
        assert healthy(endpoint)

    wait_for(lambda: not endpoint._server._open and threading.active_count() <= before, "all threads to end", 20)


def test_a_connection_that_cannot_be_accepted_is_no_busy_loop(endpoint, monkeypatch):
    tried = []

    def accept(*_: object) -> None:
        tried.append(time.monotonic())
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(http_endpoint, "_ACCEPT_PAUSE_SECONDS", 0.25)
    monkeypatch.setattr("socketserver.TCPServer.get_request", accept)
    with connect(endpoint):
        wait_for(lambda: len(tried) > 2, "tries", 30)
        monkeypatch.undo()

    assert tried[2] - tried[0] >= 0.45
    assert healthy(endpoint)


@pytest.mark.parametrize(
    ("error", "up"), [(BrokerUnavailable("away"), 0), (ServiceError("odd"), 1), (ValueError("a defect"), 1)]
)
def test_metrics_of_the_node_are_served_whatever_redis_holds(error, up):
    backlog, fleet = Mock(), Mock()
    fleet.live.return_value = []
    backlog.queued.side_effect = error

    collector = FleetCollector(backlog, fleet, lambda: True, Mock(), 0)
    found = {metric.name: metric.samples[0].value for metric in collector.collect()}

    assert found == {"maskmill_redis_up": up}
