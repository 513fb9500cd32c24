"""How long a job would take: from what was measured, never from a guess."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from producer.plan import Plan
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.fleet import Fleet, WorkerFacts
from worker.contract.ledger.jobs import Ledger

_JOBS_LOOKED_AT = 5
_JOBS_READ = 50
"""To find so many finished ones among them."""


@dataclass(frozen=True)
class Estimate:
    """How long it would take, from what was measured."""

    processes: int
    """Live worker processes; one that is still loading its model is not among them."""

    cores: int
    images_per_second: float | None
    seconds: float | None
    core_hours: float | None
    basis: str
    """Where the figures come from, or why there are none."""


def estimated(plan: Plan, ledger: Ledger) -> Estimate:
    """From the workers that are there and the jobs that have ended."""
    return estimate(plan.images - (plan.up_to_date or 0), Fleet(ledger.connection).facts(), ledger.jobs(_JOBS_READ))


def estimate(images: int, workers: Iterable[WorkerFacts], jobs: Iterable[JobView]) -> Estimate:
    """Of so many images, on these workers, after these jobs (newest first).

    The rate is what the live processes did in their last chunks, all together; failing that, what the last finished
    jobs reached. Core-hours are the core-seconds per image of the last finished jobs, failing that cores x time.
    """
    live = list(workers)
    cores = sum(len(worker.cpus) for worker in live)
    ended = [job for job in jobs if job.status is JobStatus.FINISHED and _worked(job)][:_JOBS_LOOKED_AT]
    speeds = [worker.seconds_per_image for worker in live if worker.seconds_per_image]
    last = f"the last {len(ended)} finished jobs" if len(ended) > 1 else "the last finished job"
    if speeds:
        rate, basis = len(live) / statistics.mean(speeds), "the last chunks of the live workers"
    elif seconds := sum(_seconds(job) for job in ended):
        rate, basis = sum(_worked(job) for job in ended) / seconds, last
    else:
        nothing = "nothing was measured yet: submit a few images first, with --sample 100"
        return Estimate(len(live), cores, None, None, None, nothing)
    duration = images / rate
    spent = sum(job.core_seconds for job in ended)
    per_image = spent / sum(_worked(job) for job in ended) if spent else cores * duration / max(1, images)
    return Estimate(len(live), cores, rate, duration, images * per_image / 3600 if per_image else None, basis)


def _worked(job: JobView) -> int:
    """Images that cost work."""
    return job.ok + job.failed


def _seconds(job: JobView) -> float:
    ended = job.completed_at or job.finished_at
    return max(0.0, ended - job.started_at) if ended and job.started_at else 0.0
