"""What a worker's parent process and its child both see.

A few bytes of memory: the parent is told to stop, and the child needs to know; the child makes progress, and the
parent needs to know. And a line between them: the child asks for its next chunk shortly before it needs it, and the
parent announces it.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time
import weakref
from contextlib import suppress

_PROGRESS = struct.Struct("@d")
_PROGRESS_AT = 8  # aligned, so that the eight bytes are written at once

_ASK = b"?"
_END = b"."
_MOST_BYTES = 128 * 1024
"""Of an announcement; Linux takes more in one packet (net.core.wmem_default)."""


class SharedState:
    """Make it in the parent, before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PROGRESS_AT + _PROGRESS.size)
        # Packets: an announcement arrives whole or not at all, also for a child that replaces one that died.
        self._parents, self._childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._parents.setblocking(False)
        weakref.finalize(self, _close, self._parents, self._childs).atexit = False

    def stopping(self) -> bool:
        """Whether the worker was asked to end."""
        return self._memory[0] == 1

    def stop(self) -> None:
        """Ask the child to end: it begins no further image."""
        self._memory[0] = 1

    def beat(self) -> None:
        """Note that work gets on."""
        _PROGRESS.pack_into(self._memory, _PROGRESS_AT, time.monotonic())

    def silent_seconds(self) -> float:
        """Time since the last sign of progress; the clock is the same in both processes (CLOCK_MONOTONIC)."""
        (last,) = _PROGRESS.unpack_from(self._memory, _PROGRESS_AT)
        return time.monotonic() - float(last)

    # -- the child's end of the line ----------------------------------------------------------------------------------

    def ask(self) -> None:
        """Tell the parent that the chunk in work is nearly done."""
        with suppress(BlockingIOError):
            self._childs.send(_ASK, socket.MSG_DONTWAIT)

    def announced(self) -> bytes | None:
        """Wait for the parent to announce something; None at the end of the child."""
        packet = self._childs.recv(_MOST_BYTES)
        return None if packet in (b"", _END) else packet

    def hang_up(self) -> None:
        """Let who waits in `announced` go; called in the child."""
        with suppress(BlockingIOError):
            self._parents.send(_END)

    # -- the parent's end ---------------------------------------------------------------------------------------------

    @property
    def questions(self) -> int:
        """File descriptor that can be read when the child has asked."""
        return self._parents.fileno()

    def asked(self) -> bool:
        """Whether the child has asked since the last look."""
        found = False
        with suppress(BlockingIOError):
            while self._parents.recv(16):
                found = True
        return found

    def announce(self, packet: bytes) -> None:
        """Tell the child what comes next; one that does not listen, or too large a packet, costs nothing."""
        if len(packet) <= _MOST_BYTES:
            with suppress(BlockingIOError):
                self._parents.send(packet)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()
