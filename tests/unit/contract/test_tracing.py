"""When tracing is requested, and its behaviour without the OpenTelemetry packages."""

from __future__ import annotations

import importlib

import pytest

from support.log_lines import log_text
from worker.contract import tracing
from worker.contract.errors import BadMessage
from worker.contract.messages import ChunkMessage, Outcome, OutcomeKind

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (*tracing.ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_the_standard_variables_request_traces(variables, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert tracing.requested() is expected


def test_missing_packages_are_logged_and_nothing_breaks(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")

    def missing(name: str):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    found = tracing.start("x")

    assert (
        not found.enabled
        and "event=tracing_unavailable" in log_text(caplog)
        and "pip install 'maskmill[otel]'" in log_text(caplog)
    )
    with found.span("chunk", parent=PARENT, job="j") as parent:
        found.image(Outcome(index=0, key="a", kind=OutcomeKind.OK))
    assert parent == ""
    found.close()


def test_a_message_carries_a_traceparent_and_nothing_else():
    message = {"schema_version": 1, "job": "j", "chunk": 0, "start": 0, "keys": ["a"]}

    assert ChunkMessage.read(message).traceparent == ""
    assert ChunkMessage.read(message | {"traceparent": PARENT}).traceparent == PARENT
    with pytest.raises(BadMessage, match="traceparent"):
        ChunkMessage.read(message | {"traceparent": "anything else"})
