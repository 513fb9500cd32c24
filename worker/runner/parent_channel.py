"""What the Celery parent of a worker and its model process share.

A few bytes of memory: the flag that the worker stops, set by the parent; the flags that S3 refuses the worker and that
the network is being loaded, and the time of the last progress, set by the model process. And a pair of sockets: shortly
before the model process ends a chunk it requests the next one, and the parent sends the chunk's beginning as soon as
the message arrives.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time
import weakref
from contextlib import suppress

_PROGRESS = struct.Struct("@d")
_REFUSED_AT = 1
_LOADING_AT = 2
_PROGRESS_AT = 8  # aligned, so that the eight bytes are written at once

_LOADED, _FETCHING, _COMPILING = 0, 1, 2

_REQUEST = b"?"
_END = b"."
_MAX_PACKET_BYTES = 128 * 1024
"""Longest packet; Linux allows more (net.core.wmem_default)."""


class ParentChannel:
    """Create it in the parent, before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PROGRESS_AT + _PROGRESS.size)
        # Packets arrive whole or not at all, also in a model process that replaces one that died.
        self._parent_end, self._model_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._parent_end.setblocking(False)
        weakref.finalize(self, _close, self._parent_end, self._model_end).atexit = False

    def stopping(self) -> bool:
        """Return whether the worker stops."""
        return self._memory[0] == 1

    def stop(self) -> None:
        """Ask the model process to stop: it starts no further image."""
        self._memory[0] = 1

    def refused(self) -> bool:
        """Return whether S3 refuses the model process, so that it must get no chunks."""
        return self._memory[_REFUSED_AT] == 1

    def set_refused(self, refused: bool) -> None:
        """Record whether S3 refuses the model process."""
        self._memory[_REFUSED_AT] = int(refused)

    def loading(self) -> bool:
        """Return whether the model process has no network yet, so that a chunk would wait for it."""
        return self._memory[_LOADING_AT] != _LOADED

    def compiling(self) -> bool:
        """Return whether the model process compiles the network or runs its first image: nothing is fetched."""
        return self._memory[_LOADING_AT] == _COMPILING

    def set_loading(self, *, compiling: bool = False) -> None:
        """Record that the network is being fetched, or that it is being compiled from now on."""
        self.record_progress()
        self._memory[_LOADING_AT] = _COMPILING if compiling else _FETCHING

    def set_loaded(self) -> None:
        """Record that the model process can run chunks."""
        self._memory[_LOADING_AT] = _LOADED

    def record_progress(self) -> None:
        """Record progress."""
        _PROGRESS.pack_into(self._memory, _PROGRESS_AT, time.monotonic())

    def seconds_since_progress(self) -> float:
        """Return the time since the last progress; CLOCK_MONOTONIC is the same in both processes."""
        (last,) = _PROGRESS.unpack_from(self._memory, _PROGRESS_AT)
        return time.monotonic() - float(last)

    # -- called in the model process ------------------------------------------------------------------------------

    def request_next(self) -> None:
        """Tell the parent that the current chunk is nearly done."""
        with suppress(BlockingIOError):
            self._model_end.send(_REQUEST, socket.MSG_DONTWAIT)

    def receive_next(self) -> bytes | None:
        """Wait for the packet of the next chunk; return None after `close`."""
        packet = self._model_end.recv(_MAX_PACKET_BYTES)
        return None if packet in (b"", _END) else packet

    def close(self) -> None:
        """End a pending `receive_next` of this model process."""
        with suppress(BlockingIOError):
            self._parent_end.send(_END)

    # -- called in the parent -------------------------------------------------------------------------------------

    @property
    def request_descriptor(self) -> int:
        """File descriptor that becomes readable when the model process requests a chunk."""
        return self._parent_end.fileno()

    def next_requested(self) -> bool:
        """Return whether the model process has requested a chunk since the last call."""
        found = False
        with suppress(BlockingIOError):
            while self._parent_end.recv(16):
                found = True
        return found

    def send_next(self, packet: bytes) -> None:
        """Send the beginning of the next chunk. Drop it if it is too long or if the model process does not read."""
        if len(packet) <= _MAX_PACKET_BYTES:
            with suppress(BlockingIOError):
                self._parent_end.send(packet)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()
