"""Wait for a signal or another thread without polling, since each poll evicts data from the caches of a busy core."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from typing import Self


class Wakeup:
    """An event that the main thread waits for. Use it as a context manager, in the main thread.

    Python writes a byte to its socket for every signal that has a Python handler (`signal.set_wakeup_fd`). A handler
    therefore only has to set a plain flag, and needs no lock, which the interrupted main thread might hold.
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
        """Sleep until a signal or a `poke`, including those since the last wait, or for `seconds` (None: no limit)."""
        self._reader.settimeout(None if seconds is None else max(0.0, seconds))
        with suppress(TimeoutError, BlockingIOError):  # a time-out of 0 raises the latter
            self._reader.recv(4096)

    def poke(self) -> None:
        """End a wait. May be called from any thread."""
        with suppress(BlockingIOError):  # the socket is full: the thread wakes up anyway
            self._writer.send(b".")
