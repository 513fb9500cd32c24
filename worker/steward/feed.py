"""The work of the role `feed`: keep the window full, and look for lost chunks at intervals."""

from __future__ import annotations

import time

from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.settings import Settings
from worker.steward.feeder import Feeder
from worker.steward.reconciler import Reconciler


class Feed:
    """Call it repeatedly while this process leads the role."""

    def __init__(self, config: Settings, ledger: Ledger, dispatcher: Dispatcher) -> None:
        """Use the connections of the caller's ledger and dispatcher."""
        self._feeder = Feeder(ledger, dispatcher, config.jobs.tenants)
        self._reconciler = Reconciler(ledger, dispatcher, config.engine.silence_seconds)
        self._fleet = Fleet(ledger.connection)
        self._reconcile_seconds = config.engine.reconcile_seconds
        self._reconciled = time.monotonic()

    def __call__(self) -> bool:
        """Fill the window; every `reconcile_seconds` also scan for lost chunks and forget workers that are gone.

        Returns:
            Whether there was nothing to publish.
        """
        self._feeder.tick()
        if (now := time.monotonic()) - self._reconciled >= self._reconcile_seconds:
            self._reconciled = now
            self._reconciler.scan()
            self._fleet.forget_gone()
        return self._feeder.satisfied
