"""Captured log records as the lines that a worker process would write."""

from __future__ import annotations

import pytest

from worker.telemetry.logs import TextFormatter


def log_text(caplog: pytest.LogCaptureFixture) -> str:
    """Return all captured records, one line each, fields included."""
    formatter = TextFormatter("test")
    return "\n".join(formatter.format(record) for record in caplog.records)
