"""Keeps all jobs moving: one small process beside the workers of each node, one of the fleet active at a time.

    feed    leader: fill the window (`feeder`), publish lost chunks again (`reconciler`)
    books   leader: outcomes to S3, end jobs (`bookkeeper`)

Each role is a lock in Redis that expires when its holder is gone. Everything done under it may be done twice: taking
chunks is one script, a message published twice is recognised by the ledger, an object written twice is the same.

    python -m worker.steward
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from worker import logs, metrics
from worker.bookkeeper import Bookkeeper
from worker.contract import settings
from worker.contract.backlog import Backlog
from worker.contract.broker import make_celery
from worker.contract.dispatch import Dispatcher
from worker.contract.errors import MaskmillError
from worker.contract.fleet import Fleet, Leadership
from worker.contract.ledger import Ledger
from worker.contract.link import RedisLink
from worker.contract.objects import ObjectStore
from worker.contract.settings import Settings
from worker.exporter import Exporter
from worker.feeder import Feeder
from worker.reconciler import Reconciler

log = logging.getLogger("worker.steward")

_BOOKS_SECONDS = 0.5
_TROUBLE_SECONDS = 2.0
_TROUBLE_SAID_EVERY = 15


class Role:
    """Does one thing for the fleet, over and over, while this process leads.

    Two threads: one works, the other renews the role meanwhile, since a piece of work may take minutes.
    """

    def __init__(self, name: str, config: Settings, work: Callable[[], None], seconds: float, ledger: Ledger) -> None:
        """`work` is called every `seconds` while this process has the role."""
        self._name, self._work, self._seconds = name, work, seconds
        self._leadership = Leadership(ledger.link, name, config.engine.leader_seconds)
        self._renew_seconds = config.engine.leader_seconds / 5
        self._end = threading.Event()
        self._leads = threading.Event()
        self._troubles = 0
        self._threads = [
            threading.Thread(target=self._lead, name=f"{name}-lead", daemon=True),
            threading.Thread(target=self._do, name=name, daemon=True),
        ]

    def start(self) -> None:
        """Begin to stand for the role."""
        for thread in self._threads:
            thread.start()

    @property
    def leads(self) -> bool:
        """This process has the role at the moment."""
        return self._leads.is_set()

    @property
    def running(self) -> bool:
        """Both threads are alive: neither met a defect."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End after what is being done."""
        self._end.set()

    def join(self) -> None:
        """Wait for the end."""
        for thread in self._threads:
            thread.join()

    def _lead(self) -> None:
        while not self._end.is_set():
            try:
                leads = self._leadership.hold()
            except MaskmillError:
                leads = False  # who works says what is wrong
            if leads != self._leads.is_set():
                log.info("event=leads role=%s" if leads else "event=follows role=%s", self._name)
                (self._leads.set if leads else self._leads.clear)()
            self._end.wait(self._renew_seconds)
        try:
            self._leadership.resign()
        except MaskmillError as error:
            log.info("event=not_resigned role=%s %s", self._name, error)

    def _do(self) -> None:
        while not self._end.is_set():
            pause = self._seconds
            if self._leads.is_set():
                try:
                    self._work()
                    self._troubles = 0
                except MaskmillError as error:
                    if self._troubles % _TROUBLE_SAID_EVERY == 0:
                        log.warning("event=trouble role=%s code=%s %s", self._name, error.code, error)
                    self._troubles += 1
                    pause = _TROUBLE_SECONDS
            self._end.wait(pause)


class Feed:
    """Work of the role `feed`."""

    def __init__(self, config: Settings, ledger: Ledger, dispatcher: Dispatcher) -> None:
        self._feeder = Feeder(ledger, dispatcher)
        self._reconciler = Reconciler(ledger, dispatcher, config.engine.silence_seconds)
        self._fleet = Fleet(ledger.link)
        self._every = max(1, round(config.engine.reconcile_seconds / config.engine.feed_seconds))
        self._turns = 0

    def __call__(self) -> None:
        """Fill the window; now and then look for what went missing."""
        self._feeder.tick()
        self._turns += 1
        if self._turns % self._every == 0:
            self._reconciler.look()
            self._fleet.forget_gone()


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
        metrics.node_registry(metrics.FleetCollector(Backlog(link), fleet, lambda: roles[0].leads)),
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
        log.error("event=start_failed code=%s %s", error.code, error)
        return 1


def run(config: Settings) -> int:
    """Stand for all roles until SIGTERM.

    Returns:
        The exit code: 1 when a role ended by itself.

    Raises:
        SetupError: settings or the metrics port are not as they should be.
    """
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    with ExitStack() as stack:
        store = stack.enter_context(ObjectStore(config.s3, connections=4))
        feed_ledger = stack.enter_context(Ledger(config.redis, client_name="maskmill-feeder"))
        book_ledger = stack.enter_context(Ledger(config.redis, client_name="maskmill-bookkeeper"))
        app = make_celery(config, client_name="maskmill-feeder")
        stack.callback(app.close)
        bookkeeper = Bookkeeper(store, book_ledger, config.jobs, config.engine.silence_seconds)
        feed = Feed(config, feed_ledger, Dispatcher(store, app))
        roles = [
            Role("feed", config, feed, config.engine.feed_seconds, feed_ledger),
            Role("books", config, bookkeeper.tick, _BOOKS_SECONDS, book_ledger),
        ]
        if config.metrics.port is not None:  # first: what fails here must not close connections under running roles
            stack.callback(_exporter(config, stack, roles).close)
        for role in roles:
            role.start()
        # A thread that dies of a defect must take the process along: its supervisor starts a new one.
        while not end.wait(0.5) and all(role.running for role in roles):
            pass
        for role in roles:
            role.stop()
        for role in roles:
            role.join()
    return 0 if end.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
