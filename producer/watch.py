"""Follow a job until it ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger

_RATE_WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class Sample:
    """A job at one moment."""

    view: JobView
    rate: float | None
    """Images per second over the last minute; None before anything can be said."""

    @property
    def eta_seconds(self) -> float | None:
        """Time to the end at this rate."""
        if not self.rate or self.view.total is None:
            return None
        return (self.view.total - self.view.done) / self.rate

    def as_dict(self) -> dict[str, object]:
        """For one JSON line."""
        view = self.view
        return {
            "job": view.job,
            "status": view.status.value,
            "total": view.total,
            "done": view.done,
            "ok": view.ok,
            "skipped": view.skipped,
            "failed": view.failed,
            "dead": view.dead,
            "cancelled": view.cancelled,
            "images_per_second": None if self.rate is None else round(self.rate, 3),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
        }


def follow(ledger: Ledger, job: str, *, interval: float, timeout: float | None = None) -> Iterator[Sample]:
    """Samples of a job, one per interval, the last one when it has ended or time is up.

    Args:
        ledger: where the job is.
        job: its id.
        interval: seconds between samples.
        timeout: seconds to follow it at most; the last sample's view then has not `ended`.

    Raises:
        JobNotFound: no such job.
    """
    began = time.monotonic()
    seen: deque[tuple[float, int]] = deque()
    while True:
        view, now = ledger.view(job), time.monotonic()
        seen.append((now, view.done))
        while len(seen) > 2 and seen[1][0] <= now - _RATE_WINDOW_SECONDS:  # noqa: PLR2004 -- a rate needs two
            seen.popleft()
        yield Sample(view, _rate(seen))
        left = interval if timeout is None else min(interval, began + timeout - time.monotonic())
        if view.ended or left <= 0:
            return
        time.sleep(left)


def _rate(seen: deque[tuple[float, int]]) -> float | None:
    (first_at, first), (last_at, last) = seen[0], seen[-1]
    return (last - first) / (last_at - first_at) if last > first else None


def mean_rate(view: JobView) -> float | None:
    """Images per second from the first start to the end, or to now."""
    if not view.started_at or not view.done:
        return None
    seconds = (view.finished_at or time.time()) - view.started_at
    return view.done / seconds if seconds > 0 else None
