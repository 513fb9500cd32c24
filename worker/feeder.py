"""Keeps the window of chunk messages full, fairly over all jobs. One process of the fleet does it at a time.

The window is the only thing that grows in the broker: a job of ten million images costs it no more than one of a
hundred. The same loop gives back-pressure, fair shares, priorities, pause and cancel.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from worker import metrics
from worker.contract.backlog import ActiveJob, Backlog, unblocked
from worker.contract.dispatch import WINDOW_PER_WORKER, Dispatcher, window
from worker.contract.errors import ContractError, ObjectMissing, ServiceError
from worker.contract.fleet import Fleet
from worker.contract.job import JobView
from worker.contract.ledger import Ledger
from worker.contract.messages import Priority
from worker.each import each

log = logging.getLogger(__name__)

WEIGHTS = {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}
"""Shares of the workers that jobs get beside each other."""

MAX_LOG = 50_000
"""Outcomes of a job waiting to be written to S3, above which it gets no further chunks."""

_STARVED = 0.5
"""Load, as a part of its share, below which a job is served first."""


@dataclass(frozen=True)
class Grant:
    """Chunks that a job may publish now."""

    job: ActiveJob
    chunks: int
    express: bool
    """It has less than its share: its chunks go before those that wait already."""


def allot(jobs: Sequence[ActiveJob], room: int, places: int) -> list[Grant]:
    """Divide the free room of the window over jobs with something to publish.

    Each chunk goes to the job that is farthest below its share of all places, counting what it has on its way. A job
    with less than half its share need not wait until the window has room again: it may overfill it by half of all
    places, and its chunks are served first. So a small job starts with the next worker that gets free.

    Args:
        jobs: running jobs; those with nothing to publish get nothing.
        room: messages that may be published; negative when the window is overfull.
        places: chunks that the fleet has on its way when the window is full.
    """
    hungry = {job.view.job: job for job in jobs if job.waiting > 0}
    weights = {name: WEIGHTS[job.view.policy.priority] for name, job in hungry.items()}
    share = {name: places * weight / sum(weights.values()) for name, weight in weights.items()}
    given = dict.fromkeys(hungry, 0)

    def load(name: str) -> float:
        return (hungry[name].outstanding + given[name]) / share[name]

    express = {name for name in hungry if len(hungry) > 1 and load(name) < _STARVED}
    spare = places // 2 + 1 + min(0, room)
    while takers := [name for name, job in hungry.items() if given[name] < job.waiting]:
        neediest = min(takers, key=load)
        if room > 0:
            room -= 1
        elif spare > 0 and neediest in express and load(neediest) < _STARVED:
            spare -= 1
        else:
            break
        given[neediest] += 1
    return [Grant(hungry[name], count, name in express) for name, count in given.items() if count]


class Feeder:
    """One look at a time: `tick`."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher) -> None:
        """Works over the connections of the caller's ledger and dispatcher."""
        self._ledger, self._dispatcher = ledger, dispatcher
        self._backlog, self._fleet = Backlog(ledger.link), Fleet(ledger.link)

    def tick(self) -> int:
        """Fill the window; how many chunks were published.

        Raises:
            ServiceError: Redis or S3 did not do their part; what was taken and not published waits again, or is found
                by the reconciler.
        """
        jobs = [job for job in unblocked(self._backlog.active()) if job.logged < MAX_LOG]
        if not jobs:
            return 0
        workers = len(self._fleet.live())
        room = window(workers) - self._backlog.queued()
        grants = allot(jobs, room, (WINDOW_PER_WORKER + 1) * max(1, workers))
        published = sum(each(grants, self._publish))
        metrics.PUBLISHED.inc(published)
        return published

    def _publish(self, grant: Grant) -> int:
        view = grant.job.view
        chunks = self._backlog.take(view.job, grant.chunks, epoch=view.epoch)
        return send(self._ledger, self._dispatcher, view, chunks, express=grant.express)


def send(ledger: Ledger, dispatcher: Dispatcher, view: JobView, chunks: Sequence[int], *, express: bool = False) -> int:
    """Publish chunks; how many. A job whose manifest cannot be read is cancelled.

    Raises:
        ServiceError: Redis or S3 did not do their part; the chunks wait again.
    """
    try:
        dispatcher.send(view, chunks, express=express)
    except (ContractError, ObjectMissing) as error:
        log.error("job=%s event=manifest_unreadable %s", view.job, error)
        ledger.cancel(view.job, f"its manifest cannot be read: {error}")
        return 0
    except ServiceError:
        # Or all of the job would be taken, window after window, while a service is down.
        Backlog(ledger.link).untake(view.job, chunks, epoch=view.epoch)
        raise
    return len(chunks)
