"""Waiting without polling for a signal or for another thread: on a busy core each look at nothing costs its caches."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from typing import Self


class Wakeup:
    """What a main thread sleeps on. Use as a context manager, in the main thread.

    Python writes a byte here for every signal that has a handler in Python (`signal.set_wakeup_fd`). So a handler needs
    to do no more than set a plain flag: it takes no lock that its own main thread may be holding.
    """

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float | None = None) -> None:
        """Sleep until a signal or a `poke`, also one since the last time; without, for so long or for ever."""
        self._reader.settimeout(None if seconds is None else max(0.0, seconds))
        with suppress(TimeoutError, BlockingIOError):  # the latter is what a time-out of 0 raises
            self._reader.recv(4096)

    def poke(self) -> None:
        """End a wait; from any thread."""
        with suppress(BlockingIOError):  # full: it will wake up anyway
            self._writer.send(b".")
