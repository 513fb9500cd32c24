"""Take no messages while the model process cannot run them.

It has no network yet: a message would wait for it while other nodes are idle, for ever if the network never answers. Or
S3 refuses this worker's credentials or clock, which `worker.runner.acceptance` finds out.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps

from worker.contract import redis_keys

log = logging.getLogger(__name__)

_SECONDS = 1.0
_LOADING_SECONDS = 0.1
"""Time between two checks until the first network is loaded."""


class Acceptance(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: cancels its queues while the model process loads or is refused; consumes them again."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._consuming = True

    def start(self, parent: Any) -> None:
        """Check from now on; called for each new connection, which consumes all queues."""
        self._consuming = True
        self.check(parent)
        seconds = _SECONDS if self._consuming else _LOADING_SECONDS
        self._timer = parent.timer.call_repeatedly(seconds, self._check_again, (parent,))

    def stop(self, parent: Any) -> None:
        """Check no more; called when the connection is lost or closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_again(self, parent: Any) -> None:
        self.check(parent)
        if self._consuming and self._timer is not None:  # from now on nobody waits for the next check
            self._timer.cancel()
            self._timer = parent.timer.call_repeatedly(_SECONDS, self.check, (parent,))

    def check(self, parent: Any) -> None:
        """Consume the queues if and only if the model process has its network and S3 accepts it."""
        channel = parent.app.maskmill_parent_channel
        wanted = not (channel.loading() or channel.refused())
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
