"""Keeps the window of chunk messages full, fairly over all jobs. One process of the fleet does it at a time.

The window is the only thing that grows in the broker: a job of ten million images costs it no more than one of a
hundred. The same loop gives back-pressure, fair shares, priorities, pause and cancel.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from worker.contract.errors import ContractError, ObjectMissing, ServiceError
from worker.contract.job import JobView
from worker.contract.ledger.backlog import ActiveJob, Backlog, unblocked
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.messages import Priority
from worker.contract.queue.dispatcher import WINDOW_PER_WORKER, Dispatcher, window
from worker.steward.isolation import each
from worker.telemetry import metrics

log = logging.getLogger(__name__)

WEIGHTS = {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}
"""Shares of the workers that jobs get beside each other."""

MAX_LOG = 8_000
"""Outcomes of a job waiting to be written to S3, above which it gets no further chunks: about 1.5 MB of Redis."""

_STARVED = 0.5
"""Load, as a part of its share, below which a job is served first."""


@dataclass(frozen=True)
class Grant:
    """Chunks that a job may publish now."""

    job: ActiveJob
    chunks: int
    express: bool
    """It has less than its share: its chunks go before those that wait already."""


def allot(jobs: Sequence[ActiveJob], room: int, places: int, served: dict[str, float] | None = None) -> list[Grant]:
    """Divide the free room of the window over jobs with something to publish.

    Stride scheduling: each chunk goes to the job that got least so far for its weight, so that shares come out right
    over time, also where a share is less than one chunk at a time. A job with less than half its share on its way
    need not wait until the window has room again: it may overfill it by half of all places, and its chunks are served
    first. So a small job starts with the next worker that gets free.

    Args:
        jobs: running jobs; those with nothing to publish get nothing.
        room: messages that may be published; negative when the window is overfull.
        places: chunks that the fleet has on its way when the window is full.
        served: what each job got so far for its weight, brought up to date here; a job that is not in it begins
            where the one that got least is.
    """
    hungry = {job.view.job: job for job in jobs if job.waiting > 0}
    weights = {name: WEIGHTS[job.view.policy.priority] for name, job in hungry.items()}
    share = {name: places * weight / sum(weights.values()) for name, weight in weights.items()}
    given = dict.fromkeys(hungry, 0)
    served = {} if served is None else served
    for name in served.keys() - hungry.keys():
        del served[name]
    least = min(served.values(), default=0.0)
    for name in hungry.keys() - served.keys():
        served[name] = least + hungry[name].outstanding / weights[name]

    def load(name: str) -> float:
        return (hungry[name].outstanding + given[name]) / share[name]

    def turn(name: str) -> tuple[float, float]:
        return served[name], load(name)

    def starved(name: str) -> bool:
        # Not who has had its turn: with few places a job's share of them may be less than one.
        ahead = (served[name] - min(served.values())) * weights[name]
        return len(hungry) > 1 and share[name] >= 1 and load(name) < _STARVED and ahead < _STARVED * share[name]

    express = {name for name in hungry if starved(name)}
    spare = places // 2 + 1 + min(0, room)
    while takers := [name for name, job in hungry.items() if given[name] < job.waiting]:
        if room > 0:
            room -= 1
        elif spare > 0 and (takers := [name for name in takers if name in express and starved(name)]):
            spare -= 1
        else:
            break
        next_one = min(takers, key=turn)
        given[next_one] += 1
        served[next_one] += 1 / weights[next_one]
    return [Grant(hungry[name], count, name in express) for name, count in given.items() if count]


class Feeder:
    """One look at a time: `tick`."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher) -> None:
        """Works over the connections of the caller's ledger and dispatcher."""
        self._ledger, self._dispatcher = ledger, dispatcher
        self._backlog, self._fleet = Backlog(ledger.link), Fleet(ledger.link)
        self._served: dict[str, float] = {}
        self.satisfied = False
        """At the last look there was a job, and none that had to wait for anything but the fleet."""

    def tick(self) -> int:
        """Fill the window; how many chunks were published.

        Raises:
            ServiceError: Redis or S3 did not do their part; what was taken and not published waits again, or is found
                by the reconciler.
        """
        self.satisfied = False
        active = self._backlog.active()
        jobs = [job for job in unblocked(active) if job.logged < MAX_LOG]
        if not jobs:
            return 0
        workers = len(self._fleet.live())
        room = window(workers) - self._backlog.queued()
        grants = allot(jobs, room, (WINDOW_PER_WORKER + 1) * max(1, workers), self._served)
        published = sum(each(grants, self._publish))
        metrics.PUBLISHED.inc(published)
        self.satisfied = len(jobs) == len(active) and not grants
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
        log.error(error, extra=event("manifest_invalid", job=view.job))
        ledger.cancel(view.job, f"its manifest cannot be read: {error}")
        return 0
    except ServiceError:
        # Or all of the job would be taken, window after window, while a service is down.
        Backlog(ledger.link).untake(view.job, chunks, epoch=view.epoch)
        raise
    return len(chunks)
