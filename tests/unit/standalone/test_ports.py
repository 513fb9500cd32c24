"""Chosen ports are free, distinct, and the same as before where possible."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from worker.contract.errors import StandaloneError
from worker.standalone import ports


@pytest.fixture
def busy() -> Iterator[int]:
    """Yield a port with a listener."""
    with closing(socket.create_server((ports.LOOPBACK, 0))) as server:
        yield server.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(busy):
    assert not ports.is_free(busy)


def test_a_port_is_free_again_after_its_listener_closes():
    with closing(socket.create_server((ports.LOOPBACK, 0))) as server:
        port = server.getsockname()[1]

    assert ports.is_free(port)


def test_a_listener_on_all_addresses_counts():
    with closing(socket.create_server(("0.0.0.0", 0))) as server:  # noqa: S104 -- that is the case under test
        assert not ports.is_free(server.getsockname()[1])


def test_no_port_is_chosen_twice_grpc_ports_included():
    all_offsets = {f"pair{i}": (0, ports.GRPC_OFFSET) for i in range(200)} | {f"single{i}": (0,) for i in range(200)}

    chosen = ports.choose(all_offsets)

    used = [chosen[name] + offset for name, offsets in all_offsets.items() for offset in offsets]
    assert len(set(used)) == len(used) == 600
    assert all(ports.FIRST <= port < 32_768 for port in used)


def test_kept_ports_are_chosen_again_if_free():
    offsets = {"a": (0,), "b": (0, ports.GRPC_OFFSET)}
    first = ports.choose(offsets)

    assert ports.choose(offsets, keep=first) == first


def test_a_kept_port_in_use_is_replaced_and_the_others_stay(busy):
    free = ports.choose({"b": (0,)})["b"]

    chosen = ports.choose({"a": (0,), "b": (0,)}, keep={"a": busy, "b": free})

    assert chosen["a"] != busy
    assert chosen["b"] == free


def test_a_pair_is_replaced_if_only_its_second_port_is_in_use(busy):
    kept = busy - ports.GRPC_OFFSET

    assert ports.choose({"a": (0, ports.GRPC_OFFSET)}, keep={"a": kept})["a"] != kept


def test_a_new_port_never_takes_the_place_of_a_kept_one(monkeypatch):
    # Given a generator that proposes the kept port of another name first
    kept = ports.choose({"old": (0,)})["old"]
    monkeypatch.setattr(ports.random.SystemRandom, "randrange", lambda *_: next(proposals))
    proposals = iter([kept, kept + 1, kept + 2, kept + 3])

    chosen = ports.choose({"new": (0,), "old": (0,)}, keep={"old": kept})

    assert chosen["old"] == kept
    assert chosen["new"] != kept


def test_without_a_free_port_the_error_names_the_range(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda _: False)

    with pytest.raises(StandaloneError, match="no free port between 10000 and 22000"):
        ports.choose({"a": (0,)})
