"""Take no messages while S3 refuses this worker's credentials or clock; `worker.runner.acceptance` finds that out."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps

from worker.contract import redis_keys

log = logging.getLogger(__name__)

_SECONDS = 1.0


class Acceptance(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: cancels its queues while the model process is refused, and consumes them again."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._consuming = True

    def start(self, parent: Any) -> None:
        """Check from now on; called for each new connection, which consumes all queues."""
        self._consuming = True
        self._timer = parent.timer.call_repeatedly(_SECONDS, self.check, (parent,))

    def stop(self, parent: Any) -> None:
        """Check no more; called when the connection is lost or closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self, parent: Any) -> None:
        """Consume the queues if and only if S3 accepts the model process."""
        wanted = not parent.app.maskmill_parent_channel.refused()
        if wanted == self._consuming:
            return
        consumer = parent.task_consumer
        for queue in parent.app.conf.task_queues:
            if queue.name not in redis_keys.QUEUES:
                continue
            if wanted:
                consumer.add_queue(queue)
            else:
                consumer.cancel_by_queue(queue.name)
        if wanted:
            consumer.consume()
        self._consuming = wanted
