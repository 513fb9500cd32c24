"""The parent process records the death of its model process; the rest of Celery's request is not under test."""

from __future__ import annotations

import os
import signal
import time

import pytest
from billiard import Process
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.utils.log import worker_logger
from celery.worker.request import Request

from worker.consumer.watchdog import ChunkRequest, kill_model_process_after, without_traceback


def seen(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[str]:
    """Return what is recorded when a task ends with an error, as billiard hands it over."""
    recorded: list[str] = []
    monkeypatch.setattr(Request, "on_failure", lambda *_, **__: None)
    monkeypatch.setattr(ChunkRequest, "_record_death", lambda _, text: recorded.append(text))
    try:
        raise error
    except type(error):
        info = ExceptionInfo()
    object.__new__(ChunkRequest).on_failure(info)
    return recorded


def test_a_lost_model_process_is_recorded(monkeypatch):
    assert seen(monkeypatch, WorkerLostError("Worker exited prematurely: signal 9")) == [
        "Worker exited prematurely: signal 9"
    ]


def test_a_model_process_that_exits_is_recorded(monkeypatch):
    assert seen(monkeypatch, SystemExit(3)) == ["3"]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (WorkerLostError("Could not start worker processes"), "the model process ended before it was ready"),
        (ValueError("a defect"), "Traceback"),
    ],
)
def test_a_model_process_that_cannot_start_costs_one_line(caplog, error, shown):
    worker_logger.addFilter(without_traceback)
    try:
        raise error
    except type(error) as caught:
        worker_logger.critical("Unrecoverable error: %r", caught, exc_info=True)  # as Celery does
    finally:
        worker_logger.removeFilter(without_traceback)

    assert shown in caplog.text and ("Traceback" in caplog.text) is (shown == "Traceback")


def test_an_error_of_the_task_is_not_a_death(monkeypatch):
    assert seen(monkeypatch, ValueError("bad message")) == []


def test_the_time_of_a_chunk_counts_from_its_acceptance(monkeypatch):
    monkeypatch.setattr(Request, "on_accepted", lambda *_: None)
    request = object.__new__(ChunkRequest)
    assert request.accepted == float("inf")
    request.on_accepted(4711, 12.5)
    assert request.accepted == 12.5


def test_a_model_process_that_hangs_does_not_delay_a_worker_that_stops():
    child = Process(target=time.sleep, args=(60,))
    child.start()
    os.kill(child.pid, signal.SIGSTOP)

    kill_model_process_after(0.2)

    child.join(20)
    assert child.exitcode == -signal.SIGKILL
