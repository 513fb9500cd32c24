"""Ctrl-C, SIGTERM and a closed terminal, for a command that has work to finish when it stops."""

from __future__ import annotations

import signal
from types import FrameType


class StopSignal:
    """Makes SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, and remembers that they did.

    Python drops an exception that is raised in a finaliser, and the clients of the services have many. So code that
    loops calls `check`, which raises again what was dropped.
    """

    def __init__(self) -> None:
        """Set the handlers; a signal that the parent made us ignore (`nohup`) stays ignored."""
        self._pending = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came and was not acknowledged."""
        if self._pending:
            raise KeyboardInterrupt

    def acknowledge(self) -> None:
        """Go on; the next signal raises again."""
        self._pending = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        raise KeyboardInterrupt
