"""Wall clocks of processes that a test can step, and a clock for pauses between tries.

Servers run with libfaketime (package faketime of Debian). Python's `sleep` fails under it, so that Python processes get
another `time.time` instead (`injected/sitecustomize.py`).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

_INJECTED = Path(__file__).parent / "injected"
_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")


class SteppedClock:
    """The wall clock of the processes that run with one of the environments. Their monotonic clock stays."""

    def __init__(self, file: Path) -> None:
        """Start in step with the machine; `file` holds the offset and must stay."""
        self._file = file
        self.set(0.0)

    @staticmethod
    def library() -> str | None:
        """Return the path of libfaketime; None if it is not installed."""
        root = Path("/")
        found = [path for pattern in _LIBRARIES for path in root.glob(pattern.removeprefix("/"))]
        return str(found[0]) if found else None

    def python_environment(self) -> dict[str, str]:
        """Return the variables of Python processes."""
        return {"PYTHONPATH": str(_INJECTED), "STEPPED_CLOCK": str(self._file)}

    def server_environment(self) -> dict[str, str]:
        """Return the variables of other processes; none if libfaketime is not installed."""
        library = self.library()
        if library is None:
            return {}
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Put the clock this far ahead of the machine's (negative: behind it), within a second."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+.3f}\n")
        part.replace(self._file)


class PauseClock:
    """A clock that pauses move forward at once: production limits and pauses hold, and no test waits for them.

    The real clock goes on below it, so that loops without a pause also come to their end.
    """

    def __init__(self) -> None:
        """Start at the real time."""
        self.paused = 0.0
        """Seconds of all pauses so far."""

    def sleep(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self.paused += seconds

    def monotonic(self) -> float:
        """Return the real clock with all pauses added."""
        return time.monotonic() + self.paused

    def drive_redis(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let calls to Redis, the dispatcher, and kombu between two attempts to connect, use this clock."""
        monkeypatch.setattr("worker.contract.ledger.connection.time", self)
        monkeypatch.setattr("worker.contract.queue.dispatcher.time", self)
        monkeypatch.setattr("kombu.utils.functional.sleep", self.sleep)
        monkeypatch.setattr("kombu.utils.functional.time", self.monotonic)
