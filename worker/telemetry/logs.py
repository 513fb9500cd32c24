"""Format the log records of every worker process, as text or as JSON lines.

    text    2026-01-02T03:04:05.678Z WARNING worker-0 event=image_failed job=J chunk=3 image=17 code=empty no bytes
    json    {"time": ..., "level": "WARNING", "process": "worker-0", "event": "image_failed", "job": "J", ...}

A record of ours carries its event and its fields as data (`worker.contract.log_fields`); the message after them is for
people. `worker.telemetry.events` lists all events.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from worker.contract.printable import printable
from worker.contract.settings import WorkerSettings
from worker.telemetry.events import LIBRARY

_TIME = "%Y-%m-%dT%H:%M:%S"
_BARE = re.compile(r"[\w.,:/@+%-]+")
"""A value that needs no quotes in a line of text."""


def configure(settings: WorkerSettings, name: str) -> None:
    """Send all logging of this process to standard error.

    Args:
        settings: level of maskmill's own records (libraries log from WARNING up, Celery from INFO up), and format.
        name: name of the process in each line, such as `worker-0`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(name) if settings.log_format == "json" else TextFormatter(name))
    level = settings.log_level
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("worker").setLevel(level)
    logging.getLogger("celery").setLevel(max(logging.getLevelName(level), logging.INFO))
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)  # one line per chunk with its whole result
    logging.captureWarnings(capture=True)


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object on one line."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """Return `time`, `level`, `process`, `event`, the fields, `message`, and `traceback` if there is one.

        Fields cannot replace the names above; a record without an event is one of a library.
        """
        event, fields = _event_of(record)
        line = {
            "time": _timestamp(record),
            "level": record.levelname,
            "process": self._name,
            "event": LIBRARY if event is None else event,
        }
        if event is None:
            line["logger"] = record.name
        line |= {name: value for name, value in fields.items() if name not in line}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Format a record as one line of text, followed by its traceback if there is one.

    Keys of images, messages of services and other text from outside cannot break the line or control a terminal:
    whatever is not printable is escaped.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, process, `event=...`, the fields as `name=value`, and the message."""
        event, fields = _event_of(record)
        head = {} if event is None else {"event": event}
        pairs = [f"{name}={_quoted(value)}" for name, value in (head | dict(fields)).items()]
        message = record.getMessage()
        if event is not None:
            message = printable(message)
        line = " ".join([_timestamp(record), record.levelname, self._name, *pairs, message])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _event_of(record: logging.LogRecord) -> tuple[str | None, Mapping[str, Any]]:
    """Return event and fields of a record, or no event for a record of a library."""
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    return (event, fields) if isinstance(event, str) and isinstance(fields, Mapping) else (None, {})


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime(_TIME, time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else repr(value) if isinstance(value, str) else printable(text)
