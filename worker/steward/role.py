"""One role of the fleet: its lock in Redis, and the work that a process does while it holds the lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from worker.contract.errors import CALLER_ERRORS, MaskmillError
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.leadership import Leadership
from worker.contract.log_fields import event
from worker.contract.settings import Settings
from worker.steward.isolation import error_code
from worker.telemetry import metrics

log = logging.getLogger(__name__)

_MAX_IDLE_FACTOR = 4
"""The pause doubles after each call without work, up to this multiple of the usual pause."""

_ERROR_PAUSE_SECONDS = 2.0

_BARRED_SECONDS = 60.0
"""Time for which a process does not compete for a role: S3 refused its credentials or its clock, or it kept failing."""

_DEFECTS_TOLERATED = 3
"""Unexpected exceptions in a row after which another node may try: this one may lack memory or file descriptors."""

_LOG_EVERY = 15
"""Of consecutive errors, every 15th is logged: one line in 30 s."""


class Role:
    """Repeats one piece of work for the fleet while this process leads.

    One thread works and another renews the lock, because a piece of work may take minutes.
    """

    def __init__(
        self,
        name: str,
        config: Settings,
        work: Callable[[], bool],
        seconds: float,
        connection: RedisConnection,
        *,
        on_defect: Callable[[], None] = lambda: None,
    ) -> None:
        """Start nothing yet.

        Args:
            name: of the role.
            config: of this node.
            work: called repeatedly while this process leads; returns True if there was nothing to do, which makes the
                pauses longer.
            seconds: pause between two calls.
            connection: for the lock of the role.
            on_defect: called from a thread when something ends the role that no exception handler catches.
        """
        self._name, self._work, self._seconds, self._on_defect = name, work, seconds, on_defect
        self._leadership = Leadership(connection, name, config.engine.leader_seconds)
        self._renew_seconds = config.engine.leader_seconds / 5
        self._end = threading.Event()
        self._leads = threading.Event()
        self._defect = False
        self._errors = self._defects = 0
        self._barred_until = 0.0
        self._threads = [
            threading.Thread(target=self._watched, args=(self._lead,), name=f"{name}-lead", daemon=True),
            threading.Thread(target=self._watched, args=(self._do,), name=name, daemon=True),
        ]

    def start(self) -> None:
        """Start to compete for the role."""
        for thread in self._threads:
            thread.start()

    @property
    def leads(self) -> bool:
        """Whether this process holds the lock."""
        return self._leads.is_set()

    @property
    def running(self) -> bool:
        """Whether both threads run."""
        return not self._defect and all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Stop after the current piece of work."""
        self._end.set()

    def join(self) -> None:
        """Wait until both threads have ended."""
        for thread in self._threads:
            thread.join()

    def _watched(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException:
            self._defect = True
            self._on_defect()
            raise

    def _lead(self) -> None:
        while not self._end.is_set():
            try:
                leads = self._compete()
            except MaskmillError:
                leads = False  # the working thread logs what is wrong
            except Exception as error:  # noqa: BLE001 -- no socket, no memory: another node leads meanwhile
                leads = False
                self._report(error)
            if leads != self._leads.is_set():
                log.info("leader lock", extra=event("leader_acquired" if leads else "leader_lost", role=self._name))
                (self._leads.set if leads else self._leads.clear)()
            self._end.wait(self._renew_seconds)
        try:
            self._leadership.resign()
        except Exception as error:  # noqa: BLE001 -- it expires by itself
            log.info(error, extra=event("leader_release_failed", role=self._name))

    def _compete(self) -> bool:
        """Renew or take the lock; give it to another node while S3 refuses this one."""
        if time.monotonic() >= self._barred_until:
            return self._leadership.hold()
        if self._leads.is_set():
            self._leadership.resign()
        return False

    def _do(self) -> None:
        pause = self._seconds
        while not self._end.is_set():
            if self._leads.is_set():
                try:
                    pause = min(2 * pause, _MAX_IDLE_FACTOR * self._seconds) if self._work() else self._seconds
                    self._errors = self._defects = 0
                except Exception as error:  # noqa: BLE001 -- whatever fails, the steward and its workers go on
                    self._report(error)
                    self._bar_if_hopeless(error)
                    pause = _ERROR_PAUSE_SECONDS
            else:
                pause = self._seconds
            self._end.wait(pause)

    def _report(self, error: Exception) -> None:
        code, expected = error_code(error), isinstance(error, MaskmillError)
        metrics.steward_failed(self._name, code)
        if self._errors % _LOG_EVERY == 0:
            text = error if expected else f"{type(error).__name__}: {error!s:.500}"
            log.warning(
                text, extra=event("role_failed", role=self._name, code=code), exc_info=None if expected else error
            )
        self._errors += 1

    def _bar_if_hopeless(self, error: Exception) -> None:
        """Give the role to another node for a while, after an error that this node would meet again."""
        if not isinstance(error, MaskmillError):
            self._defects += 1
        if isinstance(error, CALLER_ERRORS) or self._defects >= _DEFECTS_TOLERATED:
            self._defects = 0
            self._barred_until = time.monotonic() + _BARRED_SECONDS
