"""Free TCP ports on the loopback address.

A port can be tested but not reserved: another process may take it between the test and the start of the server. Code
that starts a server must then choose new ports and retry.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping, Sequence

from worker.contract.errors import StandaloneError

LOOPBACK = "127.0.0.1"

GRPC_OFFSET = 10_000
"""SeaweedFS opens a gRPC port this far above each of its HTTP ports."""

FIRST, LAST = 10_000, 22_000
"""Range of the ports chosen (`LAST` is excluded). Plus `GRPC_OFFSET` it stays below 32768, the first local port that
Linux uses for outgoing connections (net.ipv4.ip_local_port_range)."""

_TRIES = 2_000


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1 now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # Servers set this option too: it ignores connections of an earlier server in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(offsets: Mapping[str, Sequence[int]], *, keep: Mapping[str, int] | None = None) -> dict[str, int]:
    """Choose free ports for several servers; no port is chosen twice.

    Args:
        offsets: name -> offsets from the port that must be free together: `(0,)` for a plain port,
            `(0, GRPC_OFFSET)` for a port with its gRPC port.
        keep: name -> port of an earlier run, chosen again if it is still free.

    Returns:
        name -> port

    Raises:
        StandaloneError: no free port was found.
    """
    taken: set[int] = set()
    chosen: dict[str, int] = {}
    # Kept ports first, so that no new port takes the place of a kept one.
    for name in sorted(offsets, key=lambda name: name not in (keep or {})):
        chosen[name] = _choose_one(offsets[name], taken, (keep or {}).get(name))
        taken.update(chosen[name] + offset for offset in offsets[name])
    return chosen


def _choose_one(offsets: Sequence[int], taken: set[int], kept: int | None) -> int:
    # The generator of the operating system: a test that seeds `random` must not make two runs choose the same ports.
    generator = random.SystemRandom()
    candidates = [kept] if kept is not None else []
    for _ in range(_TRIES):
        port = candidates.pop() if candidates else generator.randrange(FIRST, LAST)
        together = [port + offset for offset in offsets]
        if taken.isdisjoint(together) and all(map(is_free, together)):
            return port
    raise StandaloneError(f"no free port between {FIRST} and {LAST} on {LOOPBACK}: stop some servers and retry")
