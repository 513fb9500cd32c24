"""Run images of an ended job again."""

from __future__ import annotations

from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage import outcome_log
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore


def retry(store: ObjectStore, ledger: Ledger, job: str, *, failed: bool, cancelled: bool) -> JobView | None:
    """Reopen a job for some of its images; return None if the job has ended and has no such images.

    Args:
        store: holds the job's folder.
        ledger: has the job.
        job: its id.
        failed: take images that failed or are dead.
        cancelled: take images left undone because the job was cancelled or stopped.

    Raises:
        JobNotFound: this Redis does not have the job.
        JobStateError: the job has not ended.
        ServiceError: S3 or Redis failed; call it again.
    """
    view = ledger.view(job)
    selected = (view.failed + view.dead if failed else 0) + (view.cancelled if cancelled else 0)
    if view.ended and not selected:
        return None
    if view.ended:  # before the job runs: it may finish, and write a new marker, within milliseconds
        for marker in (outcome_log.SUCCESS, outcome_log.DONE):
            store.delete(job_folder(view.options.dest, job) / marker)
    return ledger.reopen(job, failed=failed, cancelled=cancelled)
