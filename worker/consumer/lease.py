"""Renew the leases of delivered messages, which Celery's Redis transport does not do.

A message counts as lost when it is not acknowledged within the visibility timeout (120 s by default). The Celery
parent, whose loop is never blocked by a task, moves the timestamps of the messages it holds to the current time four
times per visibility timeout, so a chunk may take longer. If the parent dies, renewal stops and the broker redelivers
the chunk.

A message that the parent holds without a task is put back. When an acknowledgement or a rejection fails, Celery only
logs it and forgets the task: the message would occupy the worker's only prefetch slot, under a renewed lease, for ever.
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
"""Renewals within one visibility timeout: three in a row may fail before the lease expires."""


class LeaseRenewal(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: puts back and renews the messages it holds while the connection lasts."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._without_task: set[str] = set()

    def start(self, parent: Any) -> None:
        """Check and renew from now on; called for each new connection."""
        seconds = parent.app.maskmill.engine.lease_seconds / RENEWALS
        self._without_task = set()
        self._timer = parent.timer.call_repeatedly(seconds, self.maintain, (parent.task_consumer.channel,))

    def maintain(self, channel: Any) -> None:
        """Put back messages without a task, and renew all others."""
        self._without_task = put_back(channel, self._without_task)
        renew(channel)

    def stop(self, parent: Any) -> None:
        """Stop renewing; called when the connection is lost or closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def put_back(channel: Any, without_task: set[str]) -> set[str]:
    """Requeue messages that had no task in two checks in a row.

    After a single check, the acknowledgement may be about to be sent.

    Args:
        channel: of the consumer.
        without_task: delivery tags without a task in the previous check.

    Returns:
        Delivery tags without a task that are still held.
    """
    # `_delivered` and `_dirty` (acknowledged, not yet removed): see `renew`.
    working = {request.message.delivery_tag for request in [*state.reserved_requests, *state.active_requests]}
    now = set(channel.qos._delivered) - set(channel.qos._dirty) - working
    for tag in now & without_task:
        try:
            channel.qos.reject(tag, requeue=True)
        except (RedisError, OSError, ValueError) as error:  # ValueError: its entry in Redis is not JSON
            log.warning(error, extra=event("requeue_failed"))
            return now
        log.warning("its acknowledgement failed", extra=event("message_requeued", tag=tag))
    return now - without_task


def renew(channel: Any) -> int:
    """Set the timestamp of every delivered, unacknowledged message of this channel to the current time.

    XX never restores a message that was acknowledged meanwhile; GT never shortens a lease.

    Returns:
        The number of leases renewed.
    """
    # `_delivered` is private to kombu 5.7.0, which is pinned: the transport stores these tags nowhere else.
    tags = list(channel.qos._delivered)
    if not tags:
        return 0
    now = time.time()
    try:
        # Not `channel.client`: a BRPOP may be pending on that connection, and its reply would be taken for ours.
        with channel.conn_or_acquire() as client:
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True, gt=True)
    except (RedisError, OSError) as error:
        log.warning(error, extra=event("lease_renewal_failed"))  # the next one is due long before the lease ends
        metrics.LEASES.labels("failed").inc()
        return 0
    metrics.LEASES.labels("ok").inc(len(tags))
    return len(tags)
