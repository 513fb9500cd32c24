"""Collect outcomes of a chunk and record several in one call, which is most of what an image costs Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from worker.contract.messages import Outcome

RECORD_SECONDS = 0.3
"""Shortest time between two calls that record outcomes of a chunk, in seconds.

The first outcome after such a pause is recorded at once, so a network that takes longer for an image records each one
by itself. Of a faster one, a killed process loses the outcomes of at most this time; the next start of the chunk finds
their outputs in S3. At 10 images/s three outcomes share a call.
"""


class OutcomeBuffer:
    """Not thread-safe: all calls come from the thread that waits for the images."""

    def __init__(
        self, record: Callable[[Sequence[Outcome]], None], *, most: int, seconds: float = RECORD_SECONDS
    ) -> None:
        """Record nothing yet.

        Args:
            record: receives the outcomes, in the order in which they came.
            most: outcomes in one call. The images in flight: `cancel` and `pause` take effect with the next call, so no
                more images than these start after them.
            seconds: shortest time between two calls of `record`; 0: every outcome is recorded at once.
        """
        self._record, self._most, self._seconds = record, most, seconds
        self._waiting: list[Outcome] = []
        self._due = 0.0

    def add(self, outcome: Outcome) -> None:
        """Record an outcome with those that wait: now, or once they are many or the time since the last call is up."""
        self._waiting.append(outcome)
        self.poll()

    def poll(self) -> float | None:
        """Record what is due.

        Returns:
            Seconds until the next call of `poll` is due; None: only after another outcome.
        """
        if not self._waiting:
            return None
        left = self._due - time.monotonic()
        if left > 0 and len(self._waiting) < self._most:
            return left
        self.flush()
        return None

    def flush(self) -> None:
        """Record what waits. Outcomes that cannot be recorded are dropped: their images run again."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._record(waiting)
            self._due = time.monotonic() + self._seconds
