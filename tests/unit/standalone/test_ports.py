"""Ports are free, distinct, and kept where they can be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from worker.contract.errors import StandaloneError
from worker.standalone import ports


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody listens on."""
    with closing(socket.create_server((ports.LOOPBACK, 0))) as server:
        yield server.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(busy):
    assert not ports.is_free(busy)


def test_a_port_is_free_again_once_its_listener_is_gone():
    with closing(socket.create_server((ports.LOOPBACK, 0))) as server:
        port = server.getsockname()[1]

    assert ports.is_free(port)


def test_a_listener_on_all_addresses_counts():
    with closing(socket.create_server(("0.0.0.0", 0))) as server:  # noqa: S104 -- that is the case under test
        assert not ports.is_free(server.getsockname()[1])


def test_no_port_is_given_twice_companions_included():
    wanted = {f"pair{i}": (0, ports.GRPC_OFFSET) for i in range(200)} | {f"single{i}": (0,) for i in range(200)}

    chosen = ports.choose(wanted)

    used = [chosen[name] + offset for name, offsets in wanted.items() for offset in offsets]
    assert len(set(used)) == len(used) == 600
    assert all(ports.FIRST <= port < 32_768 for port in used)


def test_kept_ports_are_used_again_while_free():
    wanted = {"a": (0,), "b": (0, ports.GRPC_OFFSET)}
    first = ports.choose(wanted)

    assert ports.choose(wanted, keep=first) == first


def test_a_kept_port_that_is_taken_is_replaced_and_the_others_stay(busy):
    free = ports.choose({"b": (0,)})["b"]

    chosen = ports.choose({"a": (0,), "b": (0,)}, keep={"a": busy, "b": free})

    assert chosen["a"] != busy
    assert chosen["b"] == free


def test_a_pair_is_refused_when_only_its_companion_is_taken(busy):
    kept = busy - ports.GRPC_OFFSET

    assert ports.choose({"a": (0, ports.GRPC_OFFSET)}, keep={"a": kept})["a"] != kept


def test_a_new_port_is_never_put_where_a_kept_one_stays(monkeypatch):
    # Given a generator that proposes the kept port of another name first
    kept = ports.choose({"old": (0,)})["old"]
    monkeypatch.setattr(ports.random.SystemRandom, "randrange", lambda *_: next(proposals))
    proposals = iter([kept, kept + 1, kept + 2, kept + 3])

    chosen = ports.choose({"new": (0,), "old": (0,)}, keep={"old": kept})

    assert chosen["old"] == kept
    assert chosen["new"] != kept


def test_without_any_free_port_the_error_says_so(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda _: False)

    with pytest.raises(StandaloneError, match="no free port between 10000 and 22000"):
        ports.choose({"a": (0,)})
