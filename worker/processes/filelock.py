"""Advisory file locks (flock(2)) between the processes of one node."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from worker.contract.log_fields import event

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.01


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, limit_seconds: float | None = None) -> Iterator[int]:
    """Hold an advisory lock on a file. The kernel releases it when the process dies.

    A held lock is logged once and waited for.

    Args:
        path: the lock file; created if missing, and left in place.
        shared: let other shared holders in.
        limit_seconds: how long to wait; None waits without limit.

    Yields:
        The descriptor of the file. A child process that inherits it holds the lock as well, for as long as it lives.

    Raises:
        TimeoutError: another process held the lock for longer than the limit.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process holds the lock", extra=event("lock_waiting", file=str(path)))
            _wait(descriptor, operation, path, limit_seconds)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(descriptor: int, operation: int, path: Path, limit_seconds: float | None) -> None:
    """Acquire a held lock. flock(2) has no time-out, so a wait with a limit polls."""
    if limit_seconds is None:
        fcntl.flock(descriptor, operation)
        return
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is still locked after {limit_seconds:g} s") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
