"""The steward: one small process beside the workers of each node, of which one in the fleet leads each role.

    feed    fill the window (`feeder`), publish lost chunks again (`reconciler`)
    books   move outcomes to S3, end jobs (`bookkeeper`)

A role is a lock in Redis that expires when its holder is gone. Everything done under it may happen twice: taking chunks
is one script, the ledger recognises a message published twice, and an object written twice is the same.

    python -m worker.steward.process
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from worker.contract import settings
from worker.contract.errors import MaskmillError, SetupError
from worker.contract.ledger import replication
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.queue.celery_app import make_celery
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.processes.wakeup import Wakeup
from worker.steward.bookkeeper import Bookkeeper
from worker.steward.feed import Feed
from worker.steward.fleet_metrics import FleetCollector, node_registry
from worker.steward.http_endpoint import HttpEndpoint
from worker.steward.role import Role
from worker.telemetry import logs, metrics

log = logging.getLogger(__name__)

_BOOKS_SECONDS = 0.5


def main() -> int:
    """Run until SIGTERM, and return the exit code: `EX_CONFIG` after a set-up error, which is one line in the log."""
    try:
        config = settings.load()
        logs.configure(config.worker, "steward")
        metrics.STEWARD_STARTS.inc()
        return run(config)
    except MaskmillError as error:
        log.error(error, extra=event("start_failed", code=error.code))
        return os.EX_CONFIG if isinstance(error, SetupError) else 1


def run(config: Settings) -> int:
    """Compete for all roles until SIGTERM.

    Returns:
        The exit code: 0, or 1 after an unexpected exception in a role.

    Raises:
        SetupError: the settings are not usable, or the metrics port is not available.
    """
    asked: list[int] = []  # plain: see `Wakeup`
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    with ExitStack() as stack:
        wakeup = stack.enter_context(Wakeup())
        store = stack.enter_context(ObjectStore(config.s3, connections=4))
        # Not patient: a role tries again by itself, and must know in time that it may have lost its lock.
        feed_ledger = stack.enter_context(Ledger(config.redis, client_name="maskmill-feeder", patient=False))
        book_ledger = stack.enter_context(Ledger(config.redis, client_name="maskmill-bookkeeper", patient=False))
        app = make_celery(config, client_name="maskmill-feeder")
        stack.callback(app.close)
        bookkeeper = Bookkeeper(store, book_ledger, config.jobs, config.engine.silence_seconds)
        feed = Feed(config, feed_ledger, Dispatcher(store, app))
        roles = [
            Role("feed", config, feed, config.engine.feed_seconds, feed_ledger.connection, on_defect=wakeup.poke),
            Role("books", config, bookkeeper.tick, _BOOKS_SECONDS, book_ledger.connection, on_defect=wakeup.poke),
        ]
        if config.metrics.port is not None:  # before the roles start: a failure here closes their connections
            stack.callback(_http_endpoint(config, stack, roles).close)
        for role in roles:
            role.start()
        # A role survives every exception. If a thread ends all the same, its supervisor starts a new process.
        while not asked and all(role.running for role in roles):
            wakeup.wait()
        for role in roles:
            role.stop()
        for role in roles:
            role.join()
    return 0 if asked else 1


def _http_endpoint(config: Settings, stack: ExitStack, roles: Sequence[Role]) -> HttpEndpoint:
    """Serve metrics and health over a Redis connection of their own; `roles[0]` is the role `feed`."""
    connection = stack.enter_context(RedisConnection(config.redis, retries=0, client_name="maskmill-exporter"))
    fleet, here = Fleet(connection), f"@{config.worker.node_name}"

    def ready() -> bool:
        try:
            return any(name.endswith(here) for name in fleet.live())
        except Exception:  # noqa: BLE001 -- a probe answers in any case
            return False

    folder = metrics.folder()
    return HttpEndpoint(
        config.metrics,
        node_registry(
            FleetCollector(
                Backlog(connection),
                fleet,
                leads=lambda: roles[0].leads,
                replicas=lambda: replication.replicas(connection),
                replicas_wanted=replication.replicas_wanted(config.redis),
            )
        ),
        healthy=lambda: all(role.running for role in roles),
        ready=ready,
        before_scrape=lambda: metrics.forget_dead(folder) if folder else None,
    )


if __name__ == "__main__":
    sys.exit(main())
