"""Ends a child that hangs: what no exception and no time limit inside the process can do for stuck native code.

The parent's loop looks at the time of the child's last progress. A child that has work and has finished no image for
`image_time_limit_seconds` is killed; its chunk goes back to the queue, and the ledger learns why.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

from billiard import active_children
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import bootsteps
from celery.worker import state
from celery.worker.request import Request

from worker.contract.errors import MaskmillError
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage
from worker.runner.parent_channel import SharedState
from worker.telemetry import metrics

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

_killed: dict[str, str] = {}
"""Task id -> why its child was killed by us; read when Celery reports the loss."""


class Watchdog(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer; `watch` tells it what to look at."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Begin with a connection."""
        shared, limit = parent.app.maskmill_shared, parent.app.maskmill.worker.image_time_limit_seconds
        self._timer = parent.timer.call_repeatedly(LOOK_SECONDS, look, (shared, limit))

    def stop(self, parent: Any) -> None:
        """End with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def look(shared: SharedState, limit_seconds: float) -> bool:
    """Kill the child if it has work and got nowhere for too long; whether it did."""
    for request in list(state.active_requests):
        if request.worker_pid and request.id not in _killed and _silent_seconds(shared, request) > limit_seconds:
            _killed[request.id] = f"no image ended within {limit_seconds:g} s"
            log.error(
                _killed[request.id],
                extra=event("model_process_killed", task=request.id, pid=request.worker_pid),
            )
            os.kill(request.worker_pid, signal.SIGKILL)
            return True
    return False


def _silent_seconds(shared: SharedState, request: ChunkRequest) -> float:
    # A child that had nothing to do was silent as well: its silence counts from the moment it took this chunk.
    return min(shared.silent_seconds(), time.monotonic() - request.accepted)


def end_children_after(seconds: float) -> None:
    """Kill whatever child is still there then: a worker that stops waits for its child, however long that hangs.

    The supervisor kills as well, unless it is gone itself or somebody else asked the worker to stop.
    """

    def end() -> None:
        for child in active_children():
            log.error(
                "did not end within %g s of the order to stop",
                seconds,
                extra=event("model_process_killed", pid=child.pid),
            )
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.daemon = True  # a worker whose child ends in time does not wait for this
    timer.start()


class ChunkRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Celery's record of a running task; tells the ledger when the child died over it."""

    accepted = math.inf
    """When the child took it (CLOCK_MONOTONIC, in seconds)."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Runs in the parent, when the child has said that it begins."""
        self.accepted = time_accepted
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Runs in the parent, before the message goes back to the queue."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):  # so it is handed over by billiard 4
            error = error.exc
        if isinstance(error, WorkerLostError | SystemExit):
            self._note(str(error))
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Celery's own time limit, the last resort."""
        if not soft:
            self._note(f"the chunk took longer than {timeout:g} s")
        super().on_timeout(soft, timeout)

    def _note(self, seen: str) -> None:
        app = self.task.app
        limit = _killed.pop(self.id, None)
        why = limit or readable(seen)
        metrics.DEATHS.labels("time limit" if limit or "longer than" in seen else why).inc()
        try:
            message = ChunkMessage.read(self.args[0])
            # From the loop's thread, which must not wait: if it fails, only the reason is lost.
            with Ledger(app.maskmill.redis, retries=0, client_name="maskmill-parent") as ledger:
                ledger.died(message, app.maskmill_name, why)
        except (MaskmillError, IndexError) as error:
            log.warning(error, extra=event("crash_report_failed", task=self.id))


def readable(seen: str) -> str:
    """What billiard says about a lost process, in words that tell an operator where to look.

    >>> readable("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.")
    'killed by signal 9 (SIGKILL): out of memory, or by hand'
    """
    text = seen.removeprefix("Worker exited prematurely: ").split(" Job:")[0].rstrip(". ")
    if text.startswith("signal 9 "):
        return f"killed by {text}: out of memory, or by hand"
    return f"killed by {text}" if text.startswith("signal ") else text
