"""Estimate how long a job would take, from measurements only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from producer.plan import Plan
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.fleet import Fleet, WorkerFacts
from worker.contract.ledger.jobs import Ledger

_JOBS_USED = 5
_JOBS_READ = 50
"""Newest jobs among which that many finished ones are searched."""


@dataclass(frozen=True)
class Estimate:
    """Expected time and cost of a job."""

    processes: int
    """Live worker processes, without those that are still loading their model."""

    cores: int
    images_per_second: float | None
    seconds: float | None
    core_hours: float | None
    basis: str
    """Where the figures come from, or why there are none."""


def estimate_plan(plan: Plan, ledger: Ledger) -> Estimate:
    """Estimate a plan from the live workers and the jobs that have ended."""
    return estimate(
        max(0, plan.images - plan.unreadable - (plan.up_to_date or 0)),
        Fleet(ledger.connection).facts(),
        ledger.jobs(_JOBS_READ),
    )


def estimate(images: int, workers: Iterable[WorkerFacts], jobs: Iterable[JobView]) -> Estimate:
    """Estimate a number of images from workers and past jobs.

    The rate is that of all live processes together, in their last chunks; without one, that of the last finished jobs.
    Core-hours come from the core-seconds per image of the last finished jobs; without them, from cores x time.

    Args:
        images: to process.
        workers: live processes.
        jobs: newest first.
    """
    live = list(workers)
    cores = sum(len(worker.cpus) for worker in live)
    ended = [job for job in jobs if job.status is JobStatus.FINISHED and _processed(job)][:_JOBS_USED]
    speeds = [worker.seconds_per_image for worker in live if worker.seconds_per_image]
    if speeds:
        rate, basis = len(live) / statistics.mean(speeds), "the last chunks of the live workers"
    elif seconds := sum(_seconds(job) for job in ended):
        rate = sum(_processed(job) for job in ended) / seconds
        basis = f"the last {len(ended)} finished jobs" if len(ended) > 1 else "the last finished job"
    else:
        nothing = "no measurements yet: submit a few images first, with --sample 100"
        return Estimate(len(live), cores, None, None, None, nothing)
    duration = images / rate
    spent = sum(job.core_seconds for job in ended)
    per_image = spent / sum(_processed(job) for job in ended) if spent else cores * duration / max(1, images)
    return Estimate(len(live), cores, rate, duration, images * per_image / 3600 if per_image else None, basis)


def _processed(job: JobView) -> int:
    """Return the images that took work; skipped ones did not."""
    return job.ok + job.failed


def _seconds(job: JobView) -> float:
    ended = job.completed_at or job.finished_at
    return max(0.0, ended - job.started_at) if ended and job.started_at else 0.0
