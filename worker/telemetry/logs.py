"""Log lines of every worker process: time, level, process, then `key=value` pairs with a stable `event`.

    text    2026-01-02T03:04:05.678Z WARNING worker-0 job=J chunk=3 image=17 event=image_failed code=empty no bytes
    json    {"time": ..., "level": "WARNING", "process": "worker-0", "event": "image_failed", "job": "J", ...}

A record's message begins with its pairs; what follows is for people. Whatever `event` there is stands in
`worker.telemetry.events`.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
import time
from typing import Any

from worker.contract.settings import WorkerSettings
from worker.telemetry.events import EVENTS, LIBRARY

_OURS = ("worker", "producer")
_PAIR = re.compile(r"([a-z_]+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\[[^\]]*\]|\S*)(?:\s+|$)")
_RESERVED = frozenset({"time", "level", "process", "message", "traceback"})
_TIME = "%Y-%m-%dT%H:%M:%S"


def configure(settings: WorkerSettings, name: str) -> None:
    """Send all logging of this process to standard error.

    Args:
        settings: level of maskmill's own records (libraries speak from WARNING up, Celery from INFO up), and format.
        name: how the process calls itself, such as `worker-0`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(name) if settings.log_format == "json" else _text(name))
    level = settings.log_level
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("worker").setLevel(level)
    logging.getLogger("celery").setLevel(max(logging.getLevelName(level), logging.INFO))
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)  # one line per chunk with its whole result
    logging.captureWarnings(capture=True)


class JsonFormatter(logging.Formatter):
    """One JSON object for each record, on one line whatever is in it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """`time`, `level`, `process`, `event`, the pairs of the message, `message`, and `traceback` if there is one."""
        text = record.getMessage()
        if record.name.split(".", 1)[0] in _OURS:
            fields, rest = pairs(text)
        else:
            fields, rest = {"logger": record.name}, text
        if fields.get("event") not in EVENTS:
            fields["event"] = LIBRARY
        line = {
            "time": f"{time.strftime(_TIME, time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "process": self._name,
            "event": fields.pop("event"),
            **fields,
            "message": rest,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def pairs(text: str) -> tuple[dict[str, Any], str]:
    """The `key=value` pairs that a message begins with, and the rest of it.

    Of two pairs with one key the first counts: what comes later may be text that somebody else wrote.
    """
    fields: dict[str, Any] = {}
    at = 0
    while (found := _PAIR.match(text, at)) and found[1] not in _RESERVED and found[1] not in fields:
        fields[found[1]] = _value(found[2])
        at = found.end()
    return fields, text[at:]


def _value(text: str) -> Any:
    """Numbers, lists and quoted text as what they are; anything else as it stands."""
    if text[:1] in "'\"[" or text[:1].isdigit() or text in ("True", "False", "None"):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # what the parser raises
            return text
    return text


def _text(name: str) -> logging.Formatter:
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(message)s", _TIME)
    formatter.converter = time.gmtime
    return formatter
