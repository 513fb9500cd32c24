"""Remove jobs from Redis: those that have ended, and those whose records cannot be read."""

from __future__ import annotations

from worker.contract.errors import JobNotFound, JobStateError, JobUnreadable
from worker.contract.job import UnreadableJob
from worker.contract.ledger.jobs import Ledger


def forget(ledger: Ledger, job: str) -> None:
    """Remove one job. Its files in S3 stay, and its outputs.

    Raises:
        JobNotFound: Redis does not know the job.
        JobStateError: the job has not ended.
    """
    try:
        view = ledger.view(job)
    except JobUnreadable:
        ledger.forget(job)
        return
    except JobNotFound:
        if ledger.forget(job):  # a name in the list of jobs, or what is left of a job
            return
        raise
    if not view.ended:
        raise JobStateError(f"job {job} is {view.status.value}: only a job that has ended is removed; cancel it first")
    ledger.forget(job)


def forget_unreadable(ledger: Ledger, limit: int) -> list[UnreadableJob]:
    """Remove those of the newest `limit` jobs that cannot be read, and return them."""
    found = [job for job in ledger.newest(limit) if isinstance(job, UnreadableJob)]
    for job in found:
        ledger.forget(job.job)
    return found
