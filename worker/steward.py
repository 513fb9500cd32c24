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
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from worker.bookkeeper import Bookkeeper
from worker.contract import settings
from worker.contract.errors import MaskmillError
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.connection import RedisLink
from worker.contract.ledger.fleet import Fleet, Leadership
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.celery_app import make_celery
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.exporter import Exporter
from worker.feeder import Feeder
from worker.processes.wakeup import Wakeup
from worker.reconciler import Reconciler
from worker.telemetry import logs, metrics

log = logging.getLogger("worker.steward")

_BOOKS_SECONDS = 0.5
_QUIET = 4
"""Looks at nothing grow apart, up to so many times the usual pause."""
_TROUBLE_SECONDS = 2.0
_TROUBLE_SAID_EVERY = 15


class Role:
    """Does one thing for the fleet, over and over, while this process leads.

    Two threads: one works, the other renews the role meanwhile, since a piece of work may take minutes.
    """

    def __init__(
        self,
        name: str,
        config: Settings,
        work: Callable[[], bool],
        seconds: float,
        ledger: Ledger,
        *,
        broken: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is done yet.

        Args:
            name: of the role.
            config: of this node.
            work: called again and again while this process has the role; True: it was quiet, look less often.
            seconds: between two looks.
            ledger: for the lock of the role.
            broken: told, from a thread, that the role ends by a defect.
        """
        self._name, self._work, self._seconds, self._broken = name, work, seconds, broken
        self._leadership = Leadership(ledger.link, name, config.engine.leader_seconds)
        self._renew_seconds = config.engine.leader_seconds / 5
        self._end = threading.Event()
        self._leads = threading.Event()
        self._defect = False
        self._troubles = 0
        self._threads = [
            threading.Thread(target=self._watched, args=(self._lead,), name=f"{name}-lead", daemon=True),
            threading.Thread(target=self._watched, args=(self._do,), name=name, daemon=True),
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
        """Both threads are at it: neither met a defect."""
        return not self._defect and all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End after what is being done."""
        self._end.set()

    def join(self) -> None:
        """Wait for the end."""
        for thread in self._threads:
            thread.join()

    def _watched(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException:
            self._defect = True
            self._broken()
            raise

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
        pause = self._seconds
        while not self._end.is_set():
            if self._leads.is_set():
                try:
                    pause = min(2 * pause, _QUIET * self._seconds) if self._work() else self._seconds
                    self._troubles = 0
                except MaskmillError as error:
                    if self._troubles % _TROUBLE_SAID_EVERY == 0:
                        log.warning("event=trouble role=%s code=%s %s", self._name, error.code, error)
                    self._troubles += 1
                    pause = _TROUBLE_SECONDS
            else:
                pause = self._seconds
            self._end.wait(pause)


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
