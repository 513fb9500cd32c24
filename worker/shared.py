"""A few bytes of memory that a worker's parent process and its child both see.

The parent is told to stop, and the child needs to know; the child makes progress, and the parent needs to know.
"""

from __future__ import annotations

import mmap
import struct
import time

_PROGRESS = struct.Struct("@d")
_PROGRESS_AT = 8  # aligned, so that the eight bytes are written at once


class SharedState:
    """Make it in the parent, before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PROGRESS_AT + _PROGRESS.size)

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
