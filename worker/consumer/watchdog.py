"""Kill a model process that hangs: stuck native code ignores exceptions and time limits inside its own process.

The parent's loop checks when the model process last made progress. A model process that has a chunk and has finished no
image for `image_time_limit_seconds` is killed. Its chunk goes back to the queue, and the ledger records the reason. A
model process that hangs while it is idle never starts the chunk that it gets next: it is killed too, and the chunk is
handed to the process that replaces it.

A network may also never be ready, such as one with an endless loop. Its worker stops after `COMPILE_SECONDS`, as after
any other error at its start.
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

from worker.contract.errors import BundleError, MaskmillError
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.start_failure import report_failure
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage
from worker.contract.settings import Settings
from worker.runner.parent_channel import ParentChannel
from worker.telemetry import metrics

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0

COMPILE_SECONDS = 1800.0
"""Longest time to compile a network and to run its first images. The largest known network takes two minutes on two
cores."""

_killed: dict[str, str] = {}
"""Task id -> why the watchdog killed its model process; read when Celery reports the loss."""

_killed_at = -math.inf
"""When the watchdog killed the last model process (CLOCK_MONOTONIC, in seconds)."""


class Watchdog(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: checks the model process every `CHECK_SECONDS` while the connection lasts."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Check from now on; called for each new connection."""
        channel, limit = parent.app.maskmill_parent_channel, parent.app.maskmill.worker.image_time_limit_seconds
        self._timer = parent.timer.call_repeatedly(CHECK_SECONDS, _check, (parent.app, channel, limit))

    def stop(self, parent: Any) -> None:
        """Stop checking; called when the connection is lost or closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _check(app: Any, channel: ParentChannel, limit_seconds: float) -> None:
    kill_if_stuck(channel, limit_seconds)
    if channel.compiling() and channel.seconds_since_progress() > COMPILE_SECONDS:
        stop_without_network(app.maskmill, app.maskmill_name, COMPILE_SECONDS)


def stop_without_network(config: Settings, name: str, seconds: float) -> None:
    """Stop the worker, whose model process does not get its network ready; its supervisor decides about a restart."""
    error = BundleError(
        f"the network of {config.model.source} was not ready within {seconds:g} s: it is damaged, made to run without "
        "end, or far too large for these cores; choose another with MASKMILL_MODEL__SOURCE"
    )
    log.error(error, extra=event("start_failed", code=error.code))
    report_failure(config.redis, name, error)
    for child in active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGTERM)


def kill_if_stuck(channel: ParentChannel, limit_seconds: float) -> bool:
    """Kill the model process if it has a chunk and made no progress for `limit_seconds`.

    Returns:
        Whether it was killed.
    """
    for request in list(state.active_requests):
        if request.worker_pid and request.id not in _killed and _stuck_seconds(channel, request) > limit_seconds:
            _killed[request.id] = f"no image ended within {limit_seconds:g} s"
            log.error(
                _killed[request.id],
                extra=event("model_process_killed", task=request.id, pid=request.worker_pid),
            )
            with suppress(ProcessLookupError):
                os.kill(request.worker_pid, signal.SIGKILL)
            _note_kill()
            return True
    return _kill_if_idle_and_stuck(channel, limit_seconds)


def _kill_if_idle_and_stuck(channel: ParentChannel, limit_seconds: float) -> bool:
    """Kill the model process if it does not start a chunk that it has had for `limit_seconds`."""
    if time.monotonic() - _killed_at <= limit_seconds:  # the process that follows may not have come so far yet
        return False
    for request in list(state.reserved_requests):
        waited = min(channel.seconds_since_progress(), time.monotonic() - getattr(request, "received", math.inf))
        if request.worker_pid or waited <= limit_seconds or channel.loading():
            continue
        for child in active_children():
            log.error(
                "did not start a chunk within %g s",
                limit_seconds,
                extra=event("model_process_killed", task=request.id, pid=child.pid),
            )
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        _note_kill()
        return True
    return False


def _note_kill() -> None:
    global _killed_at  # noqa: PLW0603 -- all calls come from the loop's thread
    _killed_at = time.monotonic()


def _stuck_seconds(channel: ParentChannel, request: ChunkRequest) -> float:
    # An idle model process makes no progress either: the time counts from the moment it accepted this chunk.
    return min(channel.seconds_since_progress(), time.monotonic() - request.accepted)


def kill_model_process_after(seconds: float) -> None:
    """Kill the model process if it is still there after `seconds`: a worker that stops waits for it without limit.

    The supervisor kills it as well, unless the supervisor itself is gone or did not start the stop.
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
    timer.daemon = True  # does not delay a worker whose model process ends in time
    timer.start()


class ChunkRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Celery's record of a running task; records in the ledger when the model process died while it ran the task."""

    accepted = math.inf
    """When the model process accepted it (CLOCK_MONOTONIC, in seconds)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.received = time.monotonic()

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Runs in the parent, when the model process has reported that it starts."""
        self.accepted = time_accepted
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Runs in the parent, before the message goes back to the queue."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):  # billiard 4 wraps the error
            error = error.exc
        if isinstance(error, WorkerLostError | SystemExit):
            self._record_death(str(error))
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Runs in the parent when Celery's own time limit is reached, the last resort."""
        if not soft:
            self._record_death(f"the chunk took longer than {timeout:g} s")
        super().on_timeout(soft, timeout)

    def _record_death(self, seen: str) -> None:
        app = self.task.app
        limit = _killed.pop(self.id, None)
        why = limit or readable(seen)
        metrics.DEATHS.labels("time limit" if limit or "longer than" in seen else why).inc()
        try:
            message = ChunkMessage.read(self.args[0])
            # Without retries, since the loop's thread must not wait: after a failure only the reason is lost.
            with RedisConnection(app.maskmill.redis, retries=0, client_name="maskmill-parent") as connection:
                ChunkLedger(connection).record_death(message, app.maskmill_name, why)
        except (MaskmillError, IndexError) as error:
            log.warning(error, extra=event("crash_report_failed", task=self.id))


def without_traceback(record: logging.LogRecord) -> bool:
    """Shorten Celery's record of a model process that ended before it was ready; a filter that lets all records pass.

    The model process has logged why it ended. Celery, which finds it gone, would add a traceback of its own code.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, WorkerLostError):
        record.msg, record.args, record.exc_info = "the model process ended before it was ready", (), None
    return True


def readable(seen: str) -> str:
    """Return billiard's text about a lost process in words that help an operator to find the cause.

    >>> readable("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.")
    'killed by signal 9 (SIGKILL): out of memory, or by hand'
    """
    text = seen.removeprefix("Worker exited prematurely: ").split(" Job:")[0].rstrip(". ")
    if text.startswith("signal 9 "):
        return f"killed by {text}: out of memory, or by hand"
    return f"killed by {text}" if text.startswith("signal ") else text
