"""Lease renewal: what Celery's Redis transport lacks.

A delivered message counts as lost when it is not acknowledged within the visibility timeout. A chunk may take
longer. So the parent process of a worker, whose loop is never blocked by a task, moves the time stamps of what it
holds forward. A dead parent stops renewing, and its chunks come back within the timeout.

A message that it holds without a task is put back. Celery only logs an acknowledgement or a rejection that fails, and
forgets the task: the message would keep the worker's only place, and a renewed lease, for ever.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import bootsteps
from celery.worker import state
from redis.exceptions import RedisError

from worker.contract.log_fields import event
from worker.telemetry import metrics

log = logging.getLogger(__name__)

RENEWALS = 4
"""Renewals within one lease: three may fail before it is lost."""


class LeaseRenewal(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: tends to what is held while the connection stands."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._loose: set[str] = set()

    def start(self, parent: Any) -> None:
        """Begin with a new connection."""
        seconds = parent.app.maskmill.engine.lease_seconds / RENEWALS
        self._loose = set()
        self._timer = parent.timer.call_repeatedly(seconds, self.tend, (parent.task_consumer.channel,))

    def tend(self, channel: Any) -> None:
        """Put back what no task stands for, and renew the rest."""
        self._loose = put_back(channel, self._loose)
        renew(channel)

    def stop(self, parent: Any) -> None:
        """End with the connection; also called when it breaks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def put_back(channel: Any, loose: set[str]) -> set[str]:
    """Return messages to their queue that have been without a task at two looks in a row.

    At one look alone, the acknowledgement may be just about to be sent.

    Args:
        channel: of the consumer.
        loose: tags without a task at the last look.

    Returns:
        Tags without a task now that are still held.
    """
    # `_delivered` and `_dirty` (acknowledged, not yet removed): see `renew`.
    working = {request.message.delivery_tag for request in [*state.reserved_requests, *state.active_requests]}
    now = set(channel.qos._delivered) - set(channel.qos._dirty) - working
    for tag in now & loose:
        try:
            channel.qos.reject(tag, requeue=True)
        except (RedisError, OSError) as error:
            log.warning(error, extra=event("requeue_failed"))
            return now
        log.warning("its acknowledgement failed", extra=event("message_requeued", tag=tag))
    return now - loose


def renew(channel: Any) -> int:
    """Move the time stamp of every delivered, unacknowledged message of this channel to now.

    XX never brings back a message acknowledged meanwhile; GT never shortens a lease.

    Returns:
        How many leases were renewed.
    """
    # `_delivered` is private to kombu 5.7.0, which is pinned: the transport keeps these tags nowhere else.
    tags = list(channel.qos._delivered)
    if not tags:
        return 0
    now = time.time()
    try:
        # Not `channel.client`: a BRPOP may be waiting on that connection, and its reply would be taken for ours.
        with channel.conn_or_acquire() as client:
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True, gt=True)
    except (RedisError, OSError) as error:
        log.warning(error, extra=event("lease_renewal_failed"))  # the next one is due long before the lease ends
        metrics.LEASES.labels("failed").inc()
        return 0
    metrics.LEASES.labels("ok").inc(len(tags))
    return len(tags)
