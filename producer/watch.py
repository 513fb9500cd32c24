"""Follow a job until it ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger

_RATE_WINDOW_SECONDS = 60.0

_WAITING_SECONDS = 5.0
"""Time without progress after which the reason is looked up, again and again."""


@dataclass(frozen=True)
class JobSnapshot:
    """State and speed of a job at one moment."""

    view: JobView
    rate: float | None
    """Images per second over the last minute; None if no image finished in that time."""

    waiting: str = ""
    """Why the job makes no progress, if that is known."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the job ends at this rate; None if the rate or the number of images is unknown."""
        if not self.rate or self.view.total is None:
            return None
        return (self.view.total - self.view.done) / self.rate

    def as_dict(self) -> dict[str, object]:
        """Return the fields of one JSON line."""
        view = self.view
        fields: dict[str, object] = {
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
        return fields | ({"waiting": self.waiting} if self.waiting else {})


def follow(
    ledger: Ledger,
    job: str,
    *,
    interval: float,
    timeout: float | None = None,
    why_waiting: Callable[[JobView], str] = lambda view: "",
) -> Iterator[JobSnapshot]:
    """Yield one snapshot of a job per interval, and a last one when the job ends or the time-out expires.

    Args:
        ledger: ledger that holds the job.
        job: id of the job.
        interval: seconds between two snapshots.
        timeout: longest time to follow the job, in seconds; if it expires, `view.ended` of the last snapshot is False.
        why_waiting: returns why a job makes no progress; called at the start, and every few seconds without progress.

    Raises:
        JobNotFound: Redis does not know the job.
    """
    started = time.monotonic()
    history: deque[tuple[float, int]] = deque()
    waiting, next_check, moved = "", started, -1
    while True:
        view, now = ledger.view(job), time.monotonic()
        history.append((now, view.done))
        while len(history) > 2 and history[1][0] <= now - _RATE_WINDOW_SECONDS:  # noqa: PLR2004 -- a rate needs two
            history.popleft()
        if view.done != moved or view.ended:
            # The first check comes at once: a job that no worker can run should say so from the start.
            next_check = now if moved == -1 and not view.done else now + _WAITING_SECONDS
            waiting, moved = "", view.done
        if now >= next_check and not view.ended:
            waiting, next_check = why_waiting(view), now + _WAITING_SECONDS
        yield JobSnapshot(view, _rate(history), waiting)
        pause = interval if timeout is None else min(interval, started + timeout - time.monotonic())
        if view.ended or pause <= 0:
            return
        time.sleep(pause)


def _rate(history: deque[tuple[float, int]]) -> float | None:
    (first_at, first), (last_at, last) = history[0], history[-1]
    return (last - first) / (last_at - first_at) if last > first else None


def mean_rate(view: JobView) -> float | None:
    """Return images per second from the start of the first image to the end of the job, or to now while it runs.

    None if no image has finished.
    """
    if not view.started_at or not view.done:
        return None
    seconds = (view.finished_at or time.time()) - view.started_at
    return view.done / seconds if seconds > 0 else None
