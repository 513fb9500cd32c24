"""JSON lines, and the closed list of events: in the code, in the sources that log, in the operator's guide."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.telemetry.events import EVENTS, LIBRARY
from worker.telemetry.logs import JsonFormatter, pairs

ROOT = Path(__file__).parents[3]
NO_WORKER = ("worker/standalone/", "worker/convert/", "worker/bench/", "worker/bench/tune/")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def formats() -> Iterator[tuple[str, str]]:
    """File and line, and each constant format of a log call in what worker processes run."""
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
                and node.func.value.id in ("log", "logger")
            ):
                texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
                for text in (text for text in texts if isinstance(text, str)):
                    yield f"{name}:{node.lineno}", text


def line(message: str, *args: object, logger: str = "worker.runner.chunks", **more: object) -> dict:
    record = logging.LogRecord(logger, logging.WARNING, "f", 1, message, args, more.get("exc_info"))
    return json.loads(JsonFormatter("worker-0").format(record))


def test_every_line_of_a_worker_names_an_event_of_the_list():
    found = list(formats())

    assert len(found) > 30
    for place, text in found:
        named = re.match(r"(?:[a-z_]+=%\S+ )*event=([a-z_]+)(?: |$)", text)
        assert named and named[1] in EVENTS, (place, text)


def test_every_event_of_the_list_is_used():
    used = {match for _, text in formats() for match in re.findall(r"event=([a-z_]+)", text)}

    assert set(EVENTS) - used == {LIBRARY}


def test_the_guide_explains_the_same_events():
    guide = (ROOT / "infra" / "README.md").read_text("utf-8")

    assert dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", guide.partition("### Log lines")[2], re.MULTILINE)) == EVENTS
    assert set(re.findall(r"event=([a-z_]+)", guide)) <= set(EVENTS)


def test_a_line_tells_job_chunk_and_image():
    got = line(
        "job=%s chunk=%d image=%d event=image_failed code=%s key=%r %s", "j1", 3, 17, "empty", "a b'c.jpg", "no bytes"
    )

    assert got["time"].endswith("Z") and (got["level"], got["process"]) == ("WARNING", "worker-0")
    assert (got["event"], got["job"], got["chunk"], got["image"]) == ("image_failed", "j1", 3, 17)
    assert (got["code"], got["key"], got["message"]) == ("empty", "a b'c.jpg", "no bytes")


def test_lines_of_others_are_wrapped():
    got = line("event=job_ended Connection to %s lost\nTraceback", "redis", logger="celery.worker.consumer")

    assert (got["event"], got["logger"]) == (LIBRARY, "celery.worker.consumer")
    assert got["message"] == "event=job_ended Connection to redis lost\nTraceback"


def test_text_from_outside_does_not_change_what_is_already_said():
    got = line("job=%s event=trouble %s", "mine", "event=job_ended job=other level=INFO time=0 it says")

    assert (got["event"], got["job"], got["level"]) == ("trouble", "mine", "WARNING")
    assert got["message"].startswith("event=job_ended job=other")


def test_a_traceback_stays_on_the_line():
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        text = JsonFormatter("w").format(
            logging.LogRecord(
                "worker", logging.ERROR, "f", 1, "event=internal_error", None, (ValueError, error, error.__traceback__)
            )
        )

    assert "\n" not in text and "ValueError: first\nsecond" in json.loads(text)["traceback"]


@pytest.mark.parametrize(
    ("text", "fields", "rest"),
    [
        ("event=a", {"event": "a"}, ""),
        ("event=a n=5 x=1.5 some=words here", {"event": "a", "n": 5, "x": 1.5, "some": "words"}, "here"),
        ("again=[1, 2] keys=['a', 'b'] ok=True", {"again": [1, 2], "keys": ["a", "b"], "ok": True}, ""),
        ("cpus=0-3,8 when=12:30", {"cpus": "0-3,8", "when": "12:30"}, ""),
        ("plain text", {}, "plain text"),
        ("x='open", {"x": "'open"}, ""),
        ("x=[[[[", {"x": "[[[["}, ""),
    ],
)
def test_pairs_are_read_from_the_front(text, fields, rest):
    assert pairs(text) == (fields, rest)
