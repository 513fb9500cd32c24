"""The record of one job in Redis: its status, its options and its counters. Its size does not depend on the job's."""

from __future__ import annotations

import json
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from worker.contract.errors import ContractError
from worker.contract.messages import JobOptions, JobPolicy, StoredPolicy


class JobStatus(StrEnum):
    """The status of a job.

    listing -> running <-> paused
    running, paused -> stopping: cancelled, or too many failures; images in flight are finished
    running, paused, stopping -> closing: every image has an outcome; the lists are being written to S3
    closing -> finished | cancelled | stopped
    finished, cancelled, stopped -> reopening -> running: images are run again (`producer retry`)
    """

    LISTING = "listing"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    CLOSING = "closing"
    REOPENING = "reopening"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


WAIT_SHOWN_SECONDS = 180.0
"""Age up to which a note about an S3 that fails is shown; a worker renews it at every try."""

ENDED = frozenset({JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.STOPPED})


class JobView(BaseModel):
    """The record of one job, as `status` and `list` show it. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    status: JobStatus
    options: JobOptions
    policy: StoredPolicy = JobPolicy()
    epoch: int = 0
    chunk_images: int = Field(default=0, description="images per chunk; 0 while the job is being listed")
    total: int | None = Field(default=None, description="images in the job; None while it is being listed")
    bytes: int = 0
    chunks: int = 0
    cursor: int = Field(default=0, description="chunks published so far, not counting those published again")
    ok: int = 0
    skipped: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    created_at: float
    queued_at: float = Field(default=0.0, description="when it joined the queue: created, or started again")
    beat_at: float | None = Field(default=None, description="last heartbeat of the producer that lists it")
    submitted_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = Field(default=None, description="when the last image got its outcome")
    finished_at: float | None = Field(default=None, description="when its lists were complete in S3")
    core_seconds: float = Field(default=0.0, description="time that processes spent on its chunks, times their cores")
    ending: str = Field(default="", description="the status it will end with, when known")
    reason: str = Field(default="", description="why it was cancelled or stopped")
    codes: dict[str, int] = Field(default_factory=dict, description="number of failures by error code")
    wait_for: str = Field(default="", description="what S3 answered when a worker last gave up for the time being")
    wait_since: float | None = Field(default=None, description="when that began")
    wait_at: float | None = Field(default=None, description="when it was last so")
    store_retry_at: float | None = Field(
        default=None, description="when S3, which is unavailable for the job, is tried again; None: it is available"
    )
    store_bucket: str = Field(default="", description="the bucket that is unavailable")
    traceparent: str = Field(
        default="", description="W3C trace context of the span that submitted it; empty without traces"
    )
    models: dict[str, int] = Field(default_factory=dict, description="number of chunks by the model that ran them")

    @property
    def done(self) -> int:
        """Number of images that have an outcome."""
        return self.ok + self.skipped + self.failed + self.dead + self.cancelled

    def waits_for_store(self, now: float) -> bool:
        """Return whether images of the job wait for S3 at the time `now`, in Unix seconds."""
        return not self.ended and self.wait_at is not None and now - self.wait_at < WAIT_SHOWN_SECONDS

    @property
    def ended(self) -> bool:
        """Whether the job has reached a final status."""
        return self.status in ENDED

    @classmethod
    def read(cls, fields: dict[str, str]) -> JobView:
        """Build a view from the fields of the job's hash.

        Raises:
            ContractError: the fields do not match this version.
        """
        counts = {
            group: {name.removeprefix(head): int(n) for name, n in fields.items() if name.startswith(head)}
            for group, head in (("codes", "code:"), ("models", "model:"))
        }
        try:
            nested = {name: json.loads(fields[name]) for name in ("options", "policy") if name in fields}
            return cls.model_validate(fields | nested | counts)
        except ValueError as error:  # includes pydantic's ValidationError
            job = fields.get("job", "(unnamed)")
            raise ContractError(
                f"the record of job {job} in Redis does not match this version: upgrade maskmill here ({error})"
            ) from error
