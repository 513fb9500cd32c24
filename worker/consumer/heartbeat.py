"""A worker process tells the fleet that it is there, as long as its connection to the queue stands."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps

from worker.contract.errors import MaskmillError
from worker.contract.ledger.connection import RedisLink
from worker.contract.ledger.fleet import BEAT_SECONDS, Fleet
from worker.contract.log_fields import event

log = logging.getLogger(__name__)


class Presence(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Bootstep of the consumer."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._link: RedisLink | None = None

    def start(self, parent: Any) -> None:
        """Begin with a new connection."""
        settings, name = parent.app.maskmill, parent.app.maskmill_name
        self._link = RedisLink(settings.redis, retries=0, client_name=f"maskmill-presence-{name}")
        fleet = Fleet(self._link)
        beat(fleet, name)
        self._timer = parent.timer.call_repeatedly(BEAT_SECONDS, beat, (fleet, name))

    def stop(self, parent: Any) -> None:
        """End with the connection; also called when it breaks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.close()
            self._link = None


def beat(fleet: Fleet, name: str) -> None:
    """One sign of life; one that fails is left to the next."""
    try:
        fleet.beat(name)
    except MaskmillError as error:
        log.warning(error, extra=event("heartbeat_failed"))
