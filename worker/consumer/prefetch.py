"""One more message for a child that is nearly done with the one it has.

A worker process holds one message, so that no other waits for work that lies in its hands. When the child asks for the
next one (`worker.runner.prefetch`), the process may hold two until that one has arrived. It is handed to the child by
Celery when the first is done; the child learns of it at once.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps, signals

from worker.contract.errors import BadMessage
from worker.contract.messages import ChunkMessage
from worker.runner.parent_channel import SharedState

log = logging.getLogger(__name__)


class Credit(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer: raises its prefetch count from one to two, and lowers it when a message arrives."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._raised = False
        self._descriptor: int | None = None

    def start(self, parent: Any) -> None:
        """Listen to the child while the connection stands; a new connection begins with a prefetch count of one."""
        shared: SharedState = parent.app.maskmill_shared
        self._raised = False
        self._descriptor = shared.questions
        parent.hub.add_reader(shared.questions, self._asked, parent, shared)
        signals.task_received.connect(self._received, weak=True)

    def stop(self, parent: Any) -> None:
        """No further message."""
        signals.task_received.disconnect(self._received)
        if self._descriptor is not None:
            parent.hub.remove(self._descriptor)
            self._descriptor = None

    def _asked(self, parent: Any, shared: SharedState) -> None:
        if shared.asked() and not self._raised and not shared.stopping():
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
        except (BadMessage, IndexError):  # the child will say what is wrong with it
            return
        sender.app.maskmill_shared.announce(first_images(message).encode())


MOST_AHEAD = 64
"""Images announced; a child begins as many as it has threads."""


def first_images(message: ChunkMessage) -> str:
    """The beginning of a message, small enough for one packet (a key has 1024 bytes at most)."""
    return message.model_copy(update={"keys": message.keys[:MOST_AHEAD]}).model_dump_json()
