"""The work of the role `feed`: keep the window full, and look for lost chunks at intervals."""

from __future__ import annotations

import logging
import time

from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.settings import Settings
from worker.steward.feeder import Feeder
from worker.steward.reconciler import AFTER_CHANGE_SECONDS, Reconciler
from worker.telemetry import metrics

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
"""Time between two scans after a change of the primary."""


class Feed:
    """Call it repeatedly while this process leads the role."""

    def __init__(self, config: Settings, ledger: Ledger, dispatcher: Dispatcher) -> None:
        """Use the connections of the caller's ledger and dispatcher."""
        self._feeder = Feeder(ledger, dispatcher, config.jobs.tenants)
        self._reconciler = Reconciler(ledger, dispatcher, config.engine.silence_seconds)
        self._fleet = Fleet(ledger.connection)
        self._backlog = Backlog(ledger.connection)
        self._reconcile_seconds = config.engine.reconcile_seconds
        self._silence_seconds = config.engine.silence_seconds
        self._reconciled = time.monotonic()
        self._after_change = float("-inf")
        self._rechecked_for = float("-inf")
        """When the primary changed for which jobs were marked last."""

    def __call__(self) -> bool:
        """Fill the window; every `reconcile_seconds` also scan for lost chunks and forget workers that are gone.

        Returns:
            Whether there was nothing to publish.
        """
        self._follow_primary()
        self._feeder.tick()
        if (now := time.monotonic()) - self._reconciled >= self._reconcile_seconds:
            self._reconciled = now
            self._reconciler.scan()
            self._fleet.forget_gone()
        return self._feeder.satisfied

    def _follow_primary(self) -> None:
        """Repair at once what a new primary of Redis lacks."""
        seconds, now = self._backlog.seconds_since_change(), time.monotonic()
        if seconds is None or seconds > self._silence_seconds + AFTER_CHANGE_SECONDS:
            return
        if now - seconds > self._rechecked_for + 1:
            log.warning("it may lack the last outcomes", extra=event("primary_changed"))
            metrics.PRIMARY_CHANGES.inc()
            self._reconciler.recheck()
            self._rechecked_for = now - seconds
        if seconds >= AFTER_CHANGE_SECONDS and now - self._after_change >= _AGAIN_SECONDS:
            self._after_change = now
            self._reconciler.scan_after_change(seconds)
