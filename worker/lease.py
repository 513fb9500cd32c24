"""Lease renewal: what Celery's Redis transport lacks.

A delivered message counts as lost when it is not acknowledged within the visibility timeout. A chunk may take
longer. So the parent process of a worker, whose loop is never blocked by a task, moves the time stamps of what it
holds forward. A dead parent stops renewing, and its chunks come back within the timeout.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import bootsteps
from redis.exceptions import RedisError

from worker import metrics

log = logging.getLogger(__name__)

RENEWALS = 4
"""Renewals within one lease: three may fail before it is lost."""


class LeaseRenewal(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: renews while the connection stands."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Begin with a new connection."""
        seconds = parent.app.maskmill.engine.lease_seconds / RENEWALS
        self._timer = parent.timer.call_repeatedly(seconds, renew, (parent.task_consumer.channel,))

    def stop(self, parent: Any) -> None:
        """End with the connection; also called when it breaks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
        log.warning("event=lease_renewal_failed %s", error)  # the next one is due long before the lease ends
        metrics.LEASES.labels("failed").inc()
        return 0
    metrics.LEASES.labels("ok").inc(len(tags))
    return len(tags)
