"""Keeps all jobs moving: one small process beside the workers of each node, one of the fleet active at a time.

    feed    leader: fill the window (`feeder`), publish lost chunks again (`reconciler`)
    books   leader: outcomes to S3, end jobs (`bookkeeper`)

Each role is a lock in Redis that expires when its holder is gone. Everything done under it may be done twice: taking
chunks is one script, a message published twice is recognised by the ledger, an object written twice is the same.

    python -m worker.steward.process
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from worker.contract import settings
from worker.contract.errors import MaskmillError
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.connection import RedisLink
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.queue.celery_app import make_celery
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.processes.wakeup import Wakeup
from worker.steward.bookkeeper import Bookkeeper
from worker.steward.feeder import Feeder
from worker.steward.fleet_metrics import FleetCollector, node_registry
from worker.steward.http_endpoint import Exporter
from worker.steward.reconciler import Reconciler
from worker.steward.role import Role
from worker.telemetry import logs, metrics

log = logging.getLogger(__name__)

_BOOKS_SECONDS = 0.5


class Feed:
    """Work of the role `feed`."""

    def __init__(self, config: Settings, ledger: Ledger, dispatcher: Dispatcher) -> None:
        self._feeder = Feeder(ledger, dispatcher)
        self._reconciler = Reconciler(ledger, dispatcher, config.engine.silence_seconds)
        self._fleet = Fleet(ledger.link)
        self._reconcile_seconds = config.engine.reconcile_seconds
        self._reconciled = time.monotonic()

    def __call__(self) -> bool:
        """Fill the window; now and then look for what went missing. Whether there was nothing to publish."""
        self._feeder.tick()
        if (now := time.monotonic()) - self._reconciled >= self._reconcile_seconds:
            self._reconciled = now
            self._reconciler.look()
            self._fleet.forget_gone()
        return self._feeder.satisfied


def _exporter(config: Settings, stack: ExitStack, roles: Sequence[Role]) -> Exporter:
    link = stack.enter_context(RedisLink(config.redis, retries=0, client_name="maskmill-exporter"))
    fleet, here = Fleet(link), f"@{config.worker.node_name}"

    def ready() -> bool:
        try:
            return any(name.endswith(here) for name in fleet.live())
        except MaskmillError:
            return False

    folder = metrics.folder()
    return Exporter(
        config.metrics,
        node_registry(FleetCollector(Backlog(link), fleet, lambda: roles[0].leads)),
        healthy=lambda: all(role.running for role in roles),
        ready=ready,
        before_scrape=lambda: metrics.forget_dead(folder) if folder else None,
    )


def main() -> int:
    """Run until SIGTERM; what cannot be set up is one line in the log."""
    try:
        config = settings.load()
        logs.configure(config.worker, "steward")
        return run(config)
    except MaskmillError as error:
        log.error(error, extra=event("start_failed", code=error.code))
        return 1


def run(config: Settings) -> int:
    """Stand for all roles until SIGTERM.

    Returns:
        The exit code: 1 when a role ended by itself.

    Raises:
        SetupError: settings or the metrics port are not as they should be.
    """
    asked: list[int] = []  # plain: see `Wakeup`
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    with ExitStack() as stack:
        wakeup = stack.enter_context(Wakeup())
        store = stack.enter_context(ObjectStore(config.s3, connections=4))
        feed_ledger = stack.enter_context(Ledger(config.redis, client_name="maskmill-feeder"))
        book_ledger = stack.enter_context(Ledger(config.redis, client_name="maskmill-bookkeeper"))
        app = make_celery(config, client_name="maskmill-feeder")
        stack.callback(app.close)
        bookkeeper = Bookkeeper(store, book_ledger, config.jobs, config.engine.silence_seconds)
        feed = Feed(config, feed_ledger, Dispatcher(store, app))
        roles = [
            Role("feed", config, feed, config.engine.feed_seconds, feed_ledger, broken=wakeup.poke),
            Role("books", config, bookkeeper.tick, _BOOKS_SECONDS, book_ledger, broken=wakeup.poke),
        ]
        if config.metrics.port is not None:  # first: what fails here must not close connections under running roles
            stack.callback(_exporter(config, stack, roles).close)
        for role in roles:
            role.start()
        # A thread that dies of a defect must take the process along: its supervisor starts a new one.
        while not asked and all(role.running for role in roles):
            wakeup.wait()
        for role in roles:
            role.stop()
        for role in roles:
            role.join()
    return 0 if asked else 1


if __name__ == "__main__":
    sys.exit(main())
