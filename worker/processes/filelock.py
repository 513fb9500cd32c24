"""One process of a node at a time: advisory file locks, for fetching a bundle and for compiling a model."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from worker.contract.log_fields import event

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock on a file; the kernel frees it if the process dies.

    Args:
        path: of the lock file, created if need be and left in place.
        shared: let other shared holders in.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process holds the lock", extra=event("lock_waiting", file=str(path)))
            fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
