"""Run images of an ended job again."""

from __future__ import annotations

from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore


def retry(store: ObjectStore, ledger: Ledger, job: str, *, failed: bool, cancelled: bool) -> JobView | None:
    """Reopen a job for some of its images; None if it has ended and there are no such images.

    Args:
        store: where the job's folder is.
        ledger: where the job is.
        job: its id.
        failed: images that failed or are dead.
        cancelled: images left undone because the job was cancelled or stopped.

    Raises:
        JobNotFound: unknown to this Redis.
        JobStateError: it has not ended.
        ServiceError: S3 or Redis did not do their part; call it again.
    """
    view = ledger.view(job)
    again = (view.failed + view.dead if failed else 0) + (view.cancelled if cancelled else 0)
    if view.ended and not again:
        return None
    if view.ended:  # before it runs: it may be done, and have a new one, in the blink of an eye
        store.delete(job_folder(view.options.dest, job) / "_SUCCESS")
    return ledger.reopen(job, failed=failed, cancelled=cancelled)
