from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator

import pytest

from worker.contract.log_fields import event
from worker.contract.settings import WorkerSettings
from worker.telemetry import logs

NAMES = (None, "worker", "worker.runner.pipeline", "celery", "celery.app.trace", "py.warnings")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    logging.captureWarnings(capture=False)
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_a_line_has_time_level_process_and_text(capsys):
    logs.configure(WorkerSettings(log_level="INFO"), "worker-3")

    logging.getLogger("worker.runner.pipeline").warning("no bytes", extra=event("image_failed", job="j1"))

    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING worker-3 event=image_failed job=j1 no bytes", line
    ), line


def test_times_are_in_utc(capsys):
    logs.configure(WorkerSettings(log_level="INFO"), "w")
    record = logging.LogRecord("worker", logging.INFO, "f", 1, "text", None, None)
    record.created, record.msecs = 0.25, 250.0

    logging.getLogger("worker").handle(record)

    assert capsys.readouterr().err.startswith("1970-01-01T00:00:00.250Z ")


@pytest.mark.parametrize(
    ("level", "name", "lowest"),
    [
        ("DEBUG", "worker.runner.pipeline", logging.DEBUG),
        ("INFO", "worker.runner.pipeline", logging.INFO),
        ("ERROR", "worker.runner.pipeline", logging.ERROR),
        ("DEBUG", "celery.worker", logging.INFO),
        ("ERROR", "celery.worker", logging.ERROR),
        ("DEBUG", "celery.app.trace", logging.WARNING),
        ("DEBUG", "botocore", logging.WARNING),
    ],
)
def test_each_logger_has_its_level(level, name, lowest):
    logs.configure(WorkerSettings(log_level=level), "w")

    assert logging.getLogger(name).getEffectiveLevel() == lowest


def test_configuring_twice_does_not_double_the_lines(capsys):
    logs.configure(WorkerSettings(log_level="INFO"), "w")
    logs.configure(WorkerSettings(log_level="INFO"), "w")

    logging.getLogger("worker").info("once")

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_warnings_become_log_lines(capsys):
    logs.configure(WorkerSettings(log_level="INFO"), "w")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("mind the gap", UserWarning, stacklevel=1)

    assert "mind the gap" in capsys.readouterr().err
