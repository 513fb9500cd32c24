"""Run an action for many jobs so that a failure of one does not affect the others.

An error is one of two kinds. It says nothing about a job: Redis or S3 is away, or this machine lacks memory, disk space
or file descriptors; then the role pauses and tries again. Or it is the job's own: a record or an object was changed, or
only this job meets a defect of maskmill; then the job is left alone for a growing time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from worker.contract.errors import CALLER_ERRORS, MaskmillError
from worker.contract.log_fields import event
from worker.telemetry import metrics

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 120.0

_MAX_FAILING = 20_000
"""Jobs whose failures are remembered."""


@dataclass
class _Failing:
    failures: int
    until: float


class Isolation:
    """The failures of one role, by job."""

    def __init__(self, role: str) -> None:
        """Start without failures."""
        self._role = role
        self._failing: dict[str, _Failing] = {}

    def run_all(
        self, items: Iterable[Item], action: Callable[[Item], Answer], job: Callable[[Item], str]
    ) -> list[Answer]:
        """Call `action` for every item, even if it fails for some; leave out jobs that failed a moment ago.

        Args:
            items: what to do.
            action: does it.
            job: names the job of an item.

        Returns:
            The answers in the order of the items.

        Raises:
            Exception: the first one that says nothing about a job, after all items are done.
        """
        answers, passing = [], []
        for item in items:
            name = job(item)
            if self._pauses(name):
                continue
            try:
                answers.append(action(item))
                self._failing.pop(name, None)
            except Exception as error:  # noqa: BLE001 -- whatever a job does to the steward, it does to this job alone
                if passes(error):
                    passing.append(error)
                else:
                    self._note(name, error)
        if passing:
            raise passing[0]
        return answers

    def failures(self, job: str) -> int:
        """Return how often in a row the role failed at a job."""
        return self._failing[job].failures if job in self._failing else 0

    def _pauses(self, job: str) -> bool:
        return job in self._failing and time.monotonic() < self._failing[job].until

    def _note(self, job: str, error: Exception) -> None:
        failures = self.failures(job) + 1
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_SECONDS)
        code = error_code(error)
        metrics.steward_failed(self._role, code)
        log.error(
            error if isinstance(error, MaskmillError) else f"{type(error).__name__}: {error!s:.500}",
            extra=event("job_failed", role=self._role, job=job, code=code, failures=failures),
            exc_info=None if isinstance(error, MaskmillError) else error,
        )
        while len(self._failing) >= _MAX_FAILING:
            del self._failing[next(iter(self._failing))]
        self._failing[job] = _Failing(failures, time.monotonic() + pause)


def passes(error: Exception) -> bool:
    """Return whether an error may pass, or concerns only this process, so that it says nothing about a job."""
    if isinstance(error, MaskmillError):
        return error.retryable or isinstance(error, CALLER_ERRORS)
    return isinstance(error, OSError | MemoryError)


def error_code(error: BaseException) -> str:
    """Return the code of an error; `internal_error` if maskmill did not raise it on purpose."""
    if isinstance(error, MaskmillError):
        return error.code
    return "local_resources" if isinstance(error, OSError | MemoryError) else "internal_error"
