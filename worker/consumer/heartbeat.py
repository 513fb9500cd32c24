"""Report a worker process to the fleet: heartbeats while it is connected to the queue, deregistration when it stops."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.worker import state

from worker.contract.errors import MaskmillError
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.fleet import HEARTBEAT_SECONDS, Fleet
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage

log = logging.getLogger(__name__)


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._connection: RedisConnection | None = None

    def start(self, parent: Any) -> None:
        """Send heartbeats from now on; called for each new connection to the queue."""
        self._connection = _connect(parent.app)
        fleet, app = Fleet(self._connection), parent.app
        _report(fleet, app)
        touch_running(ChunkLedger(self._connection), app.maskmill_name)
        self._timer = parent.timer.call_repeatedly(HEARTBEAT_SECONDS, _report, (fleet, app))

    def stop(self, parent: Any) -> None:
        """Send no more heartbeats; called when the connection is lost or closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def shutdown(self, parent: Any) -> None:
        """Deregister the worker; called once, after its last chunk, and not for a lost connection."""
        with _connect(parent.app) as connection:
            deregister(Fleet(connection), parent.app.maskmill_name)


def _report(fleet: Fleet, app: Any) -> None:
    """Send a heartbeat, or none while S3 refuses the worker: it is not ready, and the window must not count it."""
    if app.maskmill_parent_channel.refused():
        withdraw(fleet, app.maskmill_name)
    else:
        send_heartbeat(fleet, app.maskmill_name)


def withdraw(fleet: Fleet, name: str) -> None:
    """Stop to count as live at once; after a failure the worker counts as live for `GONE_SECONDS`."""
    try:
        fleet.withdraw(name)
    except MaskmillError as error:
        log.warning(error, extra=event("heartbeat_failed"))


def send_heartbeat(fleet: Fleet, name: str) -> None:
    """Send one heartbeat; after a failure the next one follows in `HEARTBEAT_SECONDS`."""
    try:
        fleet.heartbeat(name)
    except MaskmillError as error:
        log.warning(error, extra=event("heartbeat_failed"))


def deregister(fleet: Fleet, name: str) -> None:
    """Remove the worker from the fleet; after a failure it counts as live for `GONE_SECONDS`."""
    try:
        fleet.deregister(name)
    except MaskmillError as error:
        log.warning(error, extra=event("deregister_failed"))


def touch_running(ledger: ChunkLedger, name: str) -> None:
    """Report the chunks that the model process still runs: after a failover they would count as lost.

    After a failure they run a second time, which costs time only.
    """
    for request in list(state.active_requests):
        try:
            ledger.touch(ChunkMessage.read(request.args[0]), name)
        except (MaskmillError, IndexError) as error:
            log.warning(error, extra=event("heartbeat_failed"))


def _connect(app: Any) -> RedisConnection:
    # Without retries: the loop's thread must not wait.
    return RedisConnection(app.maskmill.redis, retries=0, client_name=f"maskmill-heartbeat-{app.maskmill_name}")
