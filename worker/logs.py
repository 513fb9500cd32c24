"""Log lines of every worker process: time, level, process, then `key=value` pairs with a stable `event`."""

from __future__ import annotations

import logging
import sys
import time


def configure(level: str, name: str) -> None:
    """Send all logging of this process to standard error.

    Args:
        level: of maskmill's own records; libraries speak from WARNING up, Celery from INFO up.
        name: how the process calls itself, such as `worker-0`.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("worker").setLevel(level)
    logging.getLogger("celery").setLevel(max(logging.getLevelName(level), logging.INFO))
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)  # one line per chunk with its whole result
    logging.captureWarnings(capture=True)
