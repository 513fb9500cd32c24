"""Share the memory for pictures of one process among the images in flight.

Each image takes its estimated peak when its header is known, before it is decoded, and gives it back at its end. An
image that does not fit at the moment waits for those before it; one that can never fit is refused. Images that were
started ahead never wait here: they hold what they have until their chunk comes, and it comes only after the current
images, so the two could wait for each other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

_MIB = 1024 * 1024


class PictureMemory:
    """The memory for pictures of one process. Thread-safe."""

    def __init__(self, mib: int | None) -> None:
        """Start with all of it free.

        Args:
            mib: memory in MiB; None: no limit.
        """
        self.total_mib = mib
        self._free = None if mib is None else mib * _MIB
        self._total = self._free
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    def can_ever_take(self, size: int) -> bool:
        """Return whether so many bytes fit when no other image is in flight."""
        return self._total is None or size <= self._total

    def try_take(self, size: int) -> bool:
        """Take bytes if they are free and no other image waits for some; return whether they were taken."""
        with self._changed:
            if self._free is not None and (self._queue or size > self._free):
                return False
            self._take(size)
            return True

    def take(self, size: int, before_waiting: Callable[[], None]) -> None:
        """Take so many bytes, which `can_ever_take`; wait for those before in the queue, and until they are free.

        Args:
            size: bytes.
            before_waiting: called when the place in the queue is certain, so that `try_take` no longer succeeds.
        """
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            before_waiting()
            with self._changed:
                self._changed.wait_for(lambda: self._queue[0] is ticket and (self._free is None or size <= self._free))
                self._take(size)
        finally:  # also after an exception, or all later images would wait for this one
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._changed:
            if self._free is not None:
                self._free += size
            self._changed.notify_all()

    def _take(self, size: int) -> None:
        if self._free is not None:
            self._free -= size
