"""JSON lines, and the closed list of events: in the code, in the sources that log, in the operator's guide."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.contract.log_fields import event
from worker.telemetry.events import EVENTS, LIBRARY
from worker.telemetry.logs import JsonFormatter, TextFormatter

ROOT = Path(__file__).parents[3]
NO_WORKER = ("worker/standalone/", "worker/convert/", "worker/bench/", "worker/bench/tune/")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """File and line of each log call in what worker processes run, and the call."""
    for path in (ROOT / "worker").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(NO_WORKER):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                yield f"{name}:{node.lineno}", node


def named_events(call: ast.Call) -> list[str]:
    """Events that `extra=event(NAME, ...)` of a log call names; both of `A if ... else B`."""
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg == "extra" and isinstance(value, ast.Call) and ast.unparse(value.func) == "event":
            first = value.args[0]
            branches = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            return [branch.value for branch in branches if isinstance(branch, ast.Constant)]
    return []


def record(message: str, *args: object, logger: str = "worker.runner.chunks", **more: object) -> logging.LogRecord:
    made = logging.LogRecord(logger, logging.WARNING, "f", 1, message, args, more.pop("exc_info", None))
    vars(made).update(more)
    return made


def line(message: str, *args: object, **more: object) -> dict:
    return json.loads(JsonFormatter("worker-0").format(record(message, *args, **more)))


def test_every_log_call_of_a_worker_names_a_listed_event():
    found = list(log_calls())

    assert len(found) > 30
    for place, call in found:
        names = named_events(call)
        assert names and set(names) <= set(EVENTS), place


def test_every_listed_event_is_used():
    used = {name for _, call in log_calls() for name in named_events(call)}

    assert set(EVENTS) - used == {LIBRARY}


def test_loggers_have_one_name():
    pattern = re.compile(r"^(\w+) = logging\.getLogger\((.*)\)$", re.MULTILINE)
    made = [found for path in (ROOT / "worker").rglob("*.py") for found in pattern.findall(path.read_text("utf-8"))]

    assert set(made) == {("log", "__name__")}


def test_the_guide_explains_the_same_events():
    guide = (ROOT / "infra" / "README.md").read_text("utf-8")

    lines = guide.partition("### Log lines")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", lines, re.MULTILINE)) == EVENTS
    assert set(re.findall(r"event=([a-z_]+)", guide)) <= set(EVENTS)


def test_a_line_carries_job_chunk_and_image():
    got = line(
        "no bytes", **event("image_failed", job="j1", chunk=3, image=17, code="empty", key="a b'c.jpg", kernels=["f32"])
    )

    assert got["time"].endswith("Z") and (got["level"], got["process"]) == ("WARNING", "worker-0")
    assert (got["event"], got["job"], got["chunk"], got["image"]) == ("image_failed", "j1", 3, 17)
    assert (got["code"], got["key"], got["kernels"], got["message"]) == ("empty", "a b'c.jpg", ["f32"], "no bytes")


def test_records_of_libraries_are_wrapped():
    got = line("event=job_ended Connection to %s lost\nTraceback", "redis", logger="celery.worker.consumer")

    assert (got["event"], got["logger"]) == (LIBRARY, "celery.worker.consumer")
    assert got["message"] == "event=job_ended Connection to redis lost\nTraceback"


def test_text_from_outside_cannot_set_a_field():
    got = line("%s", "event=job_ended job=other level=INFO time=0 it says", **event("role_failed", job="mine"))

    assert (got["event"], got["job"], got["level"]) == ("role_failed", "mine", "WARNING")
    assert got["message"].startswith("event=job_ended job=other")


def test_a_field_cannot_replace_a_standard_field():
    got = line("text", **event("role_failed", level="INFO", process="x", message="other", role="feed"))

    assert (got["level"], got["process"], got["message"], got["role"]) == ("WARNING", "worker-0", "text", "feed")


def test_a_traceback_stays_on_the_line():
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        thrown = (ValueError, error, error.__traceback__)
    text = JsonFormatter("w").format(record("failed", exc_info=thrown, **event("internal_error")))

    assert "\n" not in text and "ValueError: first\nsecond" in json.loads(text)["traceback"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"job": "j1", "chunk": 3}, "job=j1 chunk=3"),
        ({"source": "s3://in/a.jpg", "cpus": "0-3,8"}, "source=s3://in/a.jpg cpus=0-3,8"),
        ({"key": "a b'c.jpg"}, 'key="a b\'c.jpg"'),
        ({"key": "x event=job_ended"}, "key='x event=job_ended'"),
        ({"key": "line\nbreak \x1b[31m \u202e"}, r"key='line\nbreak \x1b[31m \u202e'"),
        ({"key": "", "none": None, "list": [1, 2]}, "key='' none=None list=[1, 2]"),
    ],
)
def test_fields_in_a_line_of_text(fields, text):
    got = TextFormatter("worker-3").format(record("said", **event("image_failed", **fields)))

    assert got.endswith(f" WARNING worker-3 event=image_failed {text} said")


def test_a_message_cannot_forge_a_line_of_text():
    got = TextFormatter("w").format(record("a\nb \x9b31m", **event("image_failed")))

    assert got.endswith(r" w event=image_failed a\nb \x9b31m")
