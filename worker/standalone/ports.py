"""Free TCP ports on the loopback address.

A port can only be tested, not held: between the test and the start of the server somebody else may take it. Whoever
starts a server asks for new ports and tries again when that happens.
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
"""Range of the ports given out (the last is excluded). With `GRPC_OFFSET` on top it stays below 32768, where Linux
begins to take the local ports of outgoing connections (net.ipv4.ip_local_port_range)."""

_TRIES = 2_000


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(wanted: Mapping[str, Sequence[int]], *, keep: Mapping[str, int] | None = None) -> dict[str, int]:
    """Free ports for several servers in one go; no port is given twice.

    Args:
        wanted: for each name the offsets that must be free together: `(0,)` for a plain port,
            `(0, GRPC_OFFSET)` for one with its gRPC port.
        keep: ports of an earlier time, used again where they are still free.

    Returns:
        name -> port

    Raises:
        StandaloneError: no free port was found.
    """
    taken: set[int] = set()
    chosen: dict[str, int] = {}
    # Kept ports go first, so that no new port is put where an old one wants to stay.
    for name in sorted(wanted, key=lambda name: name not in (keep or {})):
        chosen[name] = _choose_one(wanted[name], taken, (keep or {}).get(name))
        taken.update(chosen[name] + offset for offset in wanted[name])
    return chosen


def _choose_one(offsets: Sequence[int], taken: set[int], kept: int | None) -> int:
    # The system's own generator: a test that seeds `random` must not make two runs choose alike.
    generator = random.SystemRandom()
    candidates = [kept] if kept is not None else []
    for _ in range(_TRIES):
        port = candidates.pop() if candidates else generator.randrange(FIRST, LAST)
        together = [port + offset for offset in offsets]
        if taken.isdisjoint(together) and all(map(is_free, together)):
            return port
    raise StandaloneError(f"no free port between {FIRST} and {LAST} on {LOOPBACK}: stop some servers and try again")
