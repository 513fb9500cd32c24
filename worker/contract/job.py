"""The record of one job in Redis: its status, its options and its counters. Its size does not depend on the job's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract.errors import JobUnreadable
from worker.contract.messages import (
    JOB_PATTERN,
    LAST_TIME,
    MAX_CHUNK_IMAGES,
    MAX_KEY_BYTES,
    TRACEPARENT_PATTERN,
    JobOptions,
    JobPolicy,
    StoredPolicy,
    read_policy,
)

MAX_IMAGES = 50_000_000
"""Most images of a job. Bounds what a record can make Redis and the steward allocate: half a byte, and one byte, per
image."""

MAX_EPOCH = 1_000_000
"""Most times that a job can be run again."""
_MAX_TEXT = 2_500
"""Characters of a reason; it may be made of two."""

_MAX_REASON = 1_000
"""Characters of one reason that are kept."""

_JOB = re.compile(JOB_PATTERN)
_NUMBER = re.compile(r"-?\d{1,17}(\.\d{1,20})?(e[+-]?\d{1,3})?", re.ASCII)

_Count = Annotated[int, Field(ge=0, le=MAX_IMAGES)]
_Time = Annotated[float, Field(ge=0, le=LAST_TIME)]
_Name = Annotated[str, Field(max_length=300)]
_Text = Annotated[str, Field(max_length=_MAX_TEXT)]


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

    job: str = Field(pattern=JOB_PATTERN)
    status: JobStatus
    options: JobOptions
    policy: StoredPolicy = JobPolicy()
    epoch: int = Field(default=0, ge=0, le=MAX_EPOCH)
    chunk_images: int = Field(
        default=0, ge=0, le=MAX_CHUNK_IMAGES, description="images per chunk; 0 while the job is being listed"
    )
    total: _Count | None = Field(default=None, description="images in the job; None while it is being listed")
    bytes: int = Field(default=0, ge=0, le=2**63)
    chunks: _Count = 0
    cursor: _Count = Field(default=0, description="chunks published so far, not counting those published again")
    ok: _Count = 0
    skipped: _Count = 0
    failed: _Count = 0
    dead: _Count = 0
    cancelled: _Count = 0
    created_at: _Time
    queued_at: _Time = Field(default=0.0, description="when it joined the queue: created, or started again")
    beat_at: _Time | None = Field(default=None, description="last heartbeat of the producer that lists it")
    submitted_at: _Time | None = None
    started_at: _Time | None = None
    completed_at: _Time | None = Field(default=None, description="when the last image got its outcome")
    finished_at: _Time | None = Field(default=None, description="when its lists were complete in S3")
    core_seconds: float = Field(
        default=0.0, ge=0, le=1e15, description="time that processes spent on its chunks, times their cores"
    )
    ending: str = Field(default="", max_length=20, description="the status it will end with, when known")
    reason: _Text = Field(default="", description="why it was cancelled or stopped")
    codes: dict[_Name, _Count] = Field(default_factory=dict, description="number of failures by error code")
    wait_for: _Text = Field(default="", description="what S3 answered when a worker last gave up for the time being")
    wait_since: _Time | None = Field(default=None, description="when that began")
    wait_at: _Time | None = Field(default=None, description="when it was last so")
    store_retry_at: _Time | None = Field(
        default=None, description="when S3, which is unavailable for the job, is tried again; None: it is available"
    )
    store_bucket: _Name = Field(default="", description="the bucket that is unavailable")
    traceparent: str = Field(
        default="",
        pattern=TRACEPARENT_PATTERN,
        description="W3C trace context of the span that submitted it; empty without traces",
    )
    models: dict[_Name, Annotated[int, Field(ge=0, le=2**53)]] = Field(
        default_factory=dict, description="number of chunks by the model that ran them"
    )

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

    def without_texts(self) -> JobView:
        """Return the view without what only people read, which takes less memory."""
        return self.model_copy(update={"reason": "", "wait_for": "", "codes": {}, "models": {}})

    @classmethod
    def read(cls, fields: Mapping[str, str], job: str) -> JobView:
        """Build a view from the fields of a job's hash. Every reader of a record goes through here.

        Args:
            fields: the hash.
            job: the job whose key holds the hash; a record that names another one is not read.

        Raises:
            JobUnreadable: a field is missing, of the wrong type or out of range, or fields contradict each other.
        """
        try:
            view = cls.model_validate(_parsed(fields))
            _check(view, fields, job)
        except ValidationError as error:
            raise JobUnreadable(job, _first_error(error)) from error
        except (ValueError, KeyError, RecursionError) as error:
            raise JobUnreadable(job, str(error) if type(error) is ValueError else type(error).__name__) from error
        return view


@dataclass(frozen=True)
class UnreadableJob:
    """A job whose record cannot be read."""

    job: str
    reason: str
    """What is wrong, without the content of the record."""


def is_job_id(name: str) -> bool:
    """Return whether a text can be the id of a job."""
    return _JOB.fullmatch(name) is not None


def shortened(text: str) -> str:
    """Return a reason with the length that a record may have."""
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


_SCRIPT_NUMBERS = ("max_attempts", "max_failed", "max_failed_percent", "pardoned", "judged_after")
"""Fields that only the ledger's scripts read."""

_GROUPS = {"codes": "code:", "models": "model:"}
"""Field of the view -> beginning of the names of its entries in the hash."""


def _parsed(fields: Mapping[str, str]) -> dict[str, object]:
    groups = {
        group: {name.removeprefix(head): number for name, number in fields.items() if name.startswith(head)}
        for group, head in _GROUPS.items()
    }
    nested: dict[str, object] = {}
    if "options" in fields:
        nested["options"] = JobOptions.model_validate_json(fields["options"])
    if "policy" in fields:
        nested["policy"] = read_policy(fields["policy"])
    return {**fields, **nested, **groups}


def _check(view: JobView, fields: Mapping[str, str], job: str) -> None:
    """Check what concerns several fields.

    Raises:
        ValueError: with the reason.
    """
    if view.job != job:
        raise ValueError("its record names another job")
    for name in _SCRIPT_NUMBERS:
        if name in fields and not _NUMBER.fullmatch(fields[name]):
            raise ValueError(f"{name} is not a number")
    _check_lengths(view.options)
    if view.status in (JobStatus.STOPPING, JobStatus.CLOSING) and view.ending not in ENDED:
        raise ValueError(f"it is {view.status.value}, and its ending is none")
    if view.total is None:
        if view.status not in (JobStatus.LISTING, JobStatus.CANCELLED):
            raise ValueError(f"it is {view.status.value} without a total")
    elif not _adds_up(view):
        raise ValueError("its total, chunks and counts contradict each other")


def _check_lengths(options: JobOptions) -> None:
    for url in (options.source, options.dest):
        if len(url.bucket) > _MAX_BUCKET or len(url.key.encode()) > MAX_KEY_BYTES:
            raise ValueError("its source or destination is longer than S3 allows")
    if len(options.background.encode()) > _MAX_BUCKET + MAX_KEY_BYTES + len("s3:///"):
        raise ValueError("its background is longer than S3 allows")


_MAX_BUCKET = 255
"""Longest name of a bucket that S3 ever allowed."""


def _adds_up(view: JobView) -> bool:
    total, size = view.total or 0, view.chunk_images
    chunks = -(-total // size) if size else 0
    return (size > 0 or not total) and view.chunks == chunks and view.cursor <= chunks and view.done <= total


def _first_error(error: ValidationError) -> str:
    """Return the first error in words, without the input, which may be huge or private."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first, more = details[0], len(details) - 1
    place = ".".join(str(part)[:40] for part in first["loc"])
    return f"{place or 'its options'}: {first['msg'][:200]}" + (f" and {more} more errors" if more else "")
