"""One role of the fleet: its lock in Redis, and the work that is done while this process holds it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from worker.contract.errors import MaskmillError
from worker.contract.ledger.fleet import Leadership
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.settings import Settings

log = logging.getLogger(__name__)

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
                log.info("leader lock", extra=event("leader_acquired" if leads else "leader_lost", role=self._name))
                (self._leads.set if leads else self._leads.clear)()
            self._end.wait(self._renew_seconds)
        try:
            self._leadership.resign()
        except MaskmillError as error:
            log.info(error, extra=event("leader_release_failed", role=self._name))

    def _do(self) -> None:
        pause = self._seconds
        while not self._end.is_set():
            if self._leads.is_set():
                try:
                    pause = min(2 * pause, _QUIET * self._seconds) if self._work() else self._seconds
                    self._troubles = 0
                except MaskmillError as error:
                    if self._troubles % _TROUBLE_SAID_EVERY == 0:
                        log.warning(error, extra=event("role_failed", role=self._name, code=error.code))
                    self._troubles += 1
                    pause = _TROUBLE_SECONDS
            else:
                pause = self._seconds
            self._end.wait(pause)
