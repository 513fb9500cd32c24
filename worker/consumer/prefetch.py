"""Take one more message from the queue when the model process is nearly done with the one it has.

A worker process holds one message, so that no message waits at a busy worker while another worker is idle. When the
model process requests the next chunk (`worker.runner.prefetch`), the process may hold two until that message has
arrived. Celery hands it to the model process when the first chunk is done; its first images are sent at once.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps, signals

from worker.contract.errors import BadMessage
from worker.contract.messages import ChunkMessage
from worker.runner.parent_channel import ParentChannel

log = logging.getLogger(__name__)

MAX_AHEAD = 64
"""Images sent ahead; a model process starts as many as it has threads."""


class Prefetch(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: raises the prefetch count from one to two, and lowers it when a message arrives."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._raised = False
        self._descriptor: int | None = None

    def start(self, parent: Any) -> None:
        """Listen for requests of the model process; a new connection starts with a prefetch count of one."""
        channel: ParentChannel = parent.app.maskmill_parent_channel
        self._raised = False
        self._descriptor = channel.request_descriptor
        parent.hub.add_reader(channel.request_descriptor, self._requested, parent, channel)
        signals.task_received.connect(self._received, weak=True)

    def stop(self, parent: Any) -> None:
        """Ignore requests; called when the connection is lost or closed."""
        signals.task_received.disconnect(self._received)
        if self._descriptor is not None:
            parent.hub.remove(self._descriptor)
            self._descriptor = None

    def _requested(self, parent: Any, channel: ParentChannel) -> None:
        if channel.next_requested() and not self._raised and not channel.stopping():
            self._raised = True
            parent.qos.increment_eventually()
            parent.qos.update()

    def _received(self, sender: Any, request: Any, **_: Any) -> None:
        """Runs in the loop's thread, before the message is handed to the pool."""
        if not self._raised:
            return
        self._raised = False
        sender.qos.decrement_eventually()
        sender.qos.update()
        try:
            message = ChunkMessage.read(request.args[0])
        except (BadMessage, IndexError):  # the model process reports what is wrong with it
            return
        sender.app.maskmill_parent_channel.send_next(first_images(message).encode())


def first_images(message: ChunkMessage) -> str:
    """Return the beginning of a message as JSON, short enough for one packet: a key has at most 1024 bytes."""
    return message.model_copy(update={"keys": message.keys[:MAX_AHEAD]}).model_dump_json()
