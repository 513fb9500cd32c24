"""One job as Redis knows it: its states and what can be read of it at once, whatever its size."""

from __future__ import annotations

import json
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from worker.contract.errors import ContractError
from worker.contract.messages import JobOptions, JobPolicy


class JobStatus(StrEnum):
    """Where a job is.

    listing -> running <-> paused
    running, paused -> stopping: cancelled, or too many failures; images in work are finished
    running, paused, stopping -> closing: every image has an outcome, lists are being written to S3
    closing -> finished | cancelled | stopped
    these -> reopening -> running: images are run again (`producer retry`)
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


ENDED = frozenset({JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.STOPPED})


class JobView(BaseModel):
    """One job as `status` and `list` show it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    status: JobStatus
    options: JobOptions
    policy: JobPolicy = JobPolicy()
    epoch: int = 0
    chunk_images: int = Field(default=0, description="images in a chunk; 0 while they are being listed")
    total: int | None = Field(default=None, description="images; None while they are being listed")
    bytes: int = 0
    chunks: int = 0
    cursor: int = Field(default=0, description="chunks published so far, apart from those published again")
    ok: int = 0
    skipped: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    created_at: float
    queued_at: float = Field(default=0.0, description="since when it waits its turn: created, or run again")
    beat_at: float | None = Field(default=None, description="last sign of life of who lists it")
    submitted_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = Field(default=None, description="when the last image got its outcome")
    finished_at: float | None = Field(default=None, description="when its lists were in S3 as well")
    core_seconds: float = Field(default=0.0, description="time of processes on its chunks times their cores")
    ending: str = Field(default="", description="the status it will end with, once that is known")
    reason: str = Field(default="", description="why it was cancelled or stopped")
    codes: dict[str, int] = Field(default_factory=dict, description="failures by code")
    traceparent: str = Field(default="", description="of the span that submitted it (W3C); empty without traces")
    models: dict[str, int] = Field(default_factory=dict, description="chunks by the model that ran them")

    @property
    def done(self) -> int:
        """Images with an outcome."""
        return self.ok + self.skipped + self.failed + self.dead + self.cancelled

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return self.status in ENDED

    @classmethod
    def read(cls, fields: dict[str, str]) -> JobView:
        """From the fields of the job's hash.

        Raises:
            ContractError: they are not of this version.
        """
        counts = {
            group: {name.removeprefix(head): int(n) for name, n in fields.items() if name.startswith(head)}
            for group, head in (("codes", "code:"), ("models", "model:"))
        }
        try:
            nested = {name: json.loads(fields[name]) for name in ("options", "policy") if name in fields}
            return cls.model_validate(fields | nested | counts)
        except ValueError as error:  # pydantic's own is one as well
            job = fields.get("job", "without a name")
            raise ContractError(
                f"job {job} in Redis is not of this version: upgrade what runs here ({error})"
            ) from error
