"""Run images of an ended job again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from worker.contract.job import MAX_EPOCH, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.storage import outcome_log
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

RETRY = "retry.json"
"""Object in the job's folder: the last `RetryRequest`, so that a retry under way survives the loss of Redis."""


class RetryRequest(BaseModel):
    """Which images of an ended job run again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int = Field(ge=1, le=MAX_EPOCH, description="of the job while they run")
    failed: bool = Field(description="images that failed or are dead")
    cancelled: bool = Field(description="images left undone because the job was cancelled or stopped")

    def takes_back(self, kind: OutcomeKind) -> bool:
        """Return whether images with this outcome run again."""
        if kind in (OutcomeKind.FAILED, OutcomeKind.DEAD):
            return self.failed
        return kind is OutcomeKind.CANCELLED and self.cancelled


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
    if view.ended:
        request = RetryRequest(epoch=view.epoch + 1, failed=failed, cancelled=cancelled)
        outcome_log.write_json(store, view.options.dest, job, RETRY, request.model_dump())
        # Before the job runs: it may finish, and write a new marker, within milliseconds.
        for marker in (outcome_log.SUCCESS, outcome_log.DONE):
            store.delete(job_folder(view.options.dest, job) / marker)
    return ledger.reopen(job, failed=failed, cancelled=cancelled)
