"""Rebuild a job that Redis has lost (wiped, damaged, replaced) from the job's files in S3.

Manifest and options show what was requested, the collected outcomes what was done. Outcomes of the last seconds before
the loss may not be collected; workers check those images again and find their outputs up to date. `recover_all` finds
the jobs under a destination; this module rebuilds one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.retry import RETRY, RetryRequest
from worker.contract import outcome_codec
from worker.contract.errors import ContractError, JobNotFound, JobStateError
from worker.contract.job import ENDED, MAX_EPOCH, MAX_IMAGES, JobStatus, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import LAST_TIME, MAX_CHUNK_IMAGES, JobOptions, OutcomeKind, StoredPolicy
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore

_WITH_CANCELLED = (JobStatus.CANCELLED, JobStatus.STOPPED)
"""Endings after which images without an outcome count as cancelled."""

_RUN_AGAIN = 255
"""Mark of an image whose outcome a retry has taken back."""

_FIELDS = ("options", "policy", "total", "bytes", "chunk_images")

_Model = TypeVar("_Model", bound=BaseModel)


class _Request(BaseModel):
    """What was submitted, from the job's `job.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    options: JobOptions
    policy: StoredPolicy
    total: int = Field(ge=0, le=MAX_IMAGES)
    bytes: int = Field(ge=0, le=2**63)
    chunk_images: int = Field(ge=1, le=MAX_CHUNK_IMAGES)
    submitted_at: float = Field(default_factory=time.time, ge=0, le=LAST_TIME)
    job_key: str = Field(default="", max_length=10_000)


class JobSummary(BaseModel):
    """What `recover` takes from the job summary of an earlier end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int = Field(default=-1, ge=-1, le=MAX_EPOCH)
    """-1: the job has not ended before."""

    status: str = ""
    started_at: float | None = Field(default=None, ge=0, le=LAST_TIME)
    completed_at: float | None = Field(default=None, ge=0, le=LAST_TIME)
    core_seconds: float | None = Field(default=None, ge=0, le=1e15)


@dataclass(frozen=True)
class RebuiltJob:
    """A job as its files in S3 describe it."""

    job: str
    dest: S3Url
    request: _Request
    summary: JobSummary
    epoch: int
    """The newest one that left a trace in S3."""

    outcomes: bytes
    """The outcome of each image, one byte each (`outcome_codec`)."""

    counts: dict[OutcomeKind, int]
    ending: JobStatus | None
    """The status with which the job ended; None if it had not ended."""

    @property
    def total(self) -> int:
        """Number of images."""
        return self.request.total

    @property
    def done(self) -> int:
        """Number of images with an outcome."""
        return sum(self.counts.values())


def recover(store: ObjectStore, ledger: Ledger, dest: S3Url, job: str) -> JobView:
    """Put a job back into Redis, with every outcome that is known.

    Args:
        store: holds the job's folder.
        ledger: does not have the job.
        dest: destination of the job.
        job: its id.

    Returns:
        The job: running if images are left to do, otherwise ended as before.

    Raises:
        JobStateError: Redis still has the job.
        JobNotFound: there is no such job under the destination.
        ContractError: the job's files were changed, replaced, or copied from another place.
    """
    refuse_known(ledger, job)
    return restore(ledger, read_job(store, dest, job))


def refuse_known(ledger: Ledger, job: str) -> None:
    """Raise an error if Redis has a job.

    Raises:
        JobStateError: it does.
        JobUnreadable: it has a record of it that cannot be read.
    """
    try:
        view = ledger.view(job)
    except JobNotFound:
        return
    raise JobStateError(f"job {job} is in Redis and {view.status.value}: there is nothing to recover")


def read_job(store: ObjectStore, dest: S3Url, job: str, *, marked: bool = True) -> RebuiltJob:
    """Read a job from its folder. Nothing is written.

    Args:
        store: holds the folder.
        dest: destination of the job.
        job: its id.
        marked: the folder has the marker of a job that finished. Without it, a finished job ends once more.

    Raises:
        JobNotFound, ContractError: as in `recover`.
    """
    request, summary = _read_request(store, dest, job), read_summary(store, dest, job)
    retry = read_retry(store, dest, job)
    names = outcome_log.part_names(store, dest, job)
    epoch = max([*map(outcome_log.epoch_of, names), summary.epoch, retry.epoch if retry else 0])
    status = summary.status if summary.epoch == epoch else None
    under_way = retry if status is None and retry and retry.epoch > summary.epoch else None
    outcomes = _newest_outcomes(request, outcome_log.kinds_newest_first(store, dest, job, names), under_way, summary)
    counts = {kind: outcomes.count(number) for kind, number in outcome_codec.NUMBERS.items()}
    if status in _WITH_CANCELLED:
        counts[OutcomeKind.CANCELLED] += request.total - sum(counts.values())
    unmarked = status == JobStatus.FINISHED and not marked
    ending = JobStatus(status) if status in ENDED and not unmarked else None
    return RebuiltJob(job, dest, request, summary, epoch, outcomes, counts, ending)


def restore(ledger: Ledger, found: RebuiltJob) -> JobView:
    """Put a job that was read from S3 into Redis.

    Raises:
        JobStateError: Redis has the job by now.
    """
    request = found.request
    view = ledger.restore(
        found.job,
        request.options,
        request.policy.model_copy(update={"skip_existing": True}),
        # A new epoch, so that old messages, if any are left, are not taken for those published from now on.
        fields={
            "epoch": found.epoch + 1,
            "total": request.total,
            "bytes": request.bytes,
            "chunk_images": request.chunk_images,
            "created_at": request.submitted_at,
            "submitted_at": request.submitted_at,
            **_times(found.summary),
        },
        counts=found.counts,
        outcomes=found.outcomes,
        ending=found.ending,
    )
    if request.job_key:  # submitted again under its key, it is joined as before
        ledger.claim(request.job_key, found.job)
    return view


def read_summary(store: ObjectStore, dest: S3Url, job: str) -> JobSummary:
    """Read the summary of a job's last end.

    Raises:
        ContractError: it was changed or replaced.
    """
    return _read(JobSummary, store, dest, job, outcome_log.SUMMARY) or JobSummary()


def read_retry(store: ObjectStore, dest: S3Url, job: str) -> RetryRequest | None:
    """Read the last request to run images of a job again; None without one.

    Raises:
        ContractError: it was changed or replaced.
    """
    return _read(RetryRequest, store, dest, job, RETRY)


def _read_request(store: ObjectStore, dest: S3Url, job: str) -> _Request:
    folder = manifest.job_folder(dest, job)
    facts = outcome_log.read_json(store, dest, job, outcome_log.REQUEST)
    if facts is None:
        raise JobNotFound(f"no job {job!r} under {dest}: {folder} has no job.json")
    if missing := [name for name in _FIELDS if name not in facts]:
        raise ContractError(f"{folder}job.json lacks {', '.join(missing)}")
    request = _validated(_Request, facts, folder / outcome_log.REQUEST)
    if request.options.dest != dest:
        raise ContractError(
            f"{folder} is a copy: its job writes to {request.options.dest}; recover it from there, or submit it again"
        )
    return request


def _read(model: type[_Model], store: ObjectStore, dest: S3Url, job: str, name: str) -> _Model | None:
    facts = outcome_log.read_json(store, dest, job, name)
    return None if facts is None else _validated(model, facts, manifest.job_folder(dest, job) / name)


def _validated(model: type[_Model], facts: dict[str, Any], url: S3Url) -> _Model:
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        raise ContractError(f"{url} does not have the format of this version: {error}") from error


def _times(summary: JobSummary) -> dict[str, Any]:
    found = summary.model_dump(include={"started_at", "completed_at", "core_seconds"})
    return {name: value for name, value in found.items() if value}


def _newest_outcomes(
    request: _Request,
    newest_first: Iterable[tuple[int, int, OutcomeKind]],
    retry: RetryRequest | None,
    summary: JobSummary,
) -> bytes:
    """Return the newest outcome of each image, one byte each; 0 without one, or if `retry` has taken it back."""
    found = bytearray(request.total)
    for epoch, index, kind in newest_first:
        if index < request.total and not found[index]:
            again = retry is not None and epoch < retry.epoch and retry.takes_back(kind)
            found[index] = _RUN_AGAIN if again else outcome_codec.NUMBERS[kind]
    if retry and not retry.cancelled and summary.status in _WITH_CANCELLED:
        found = found.replace(b"\0", bytes([outcome_codec.NUMBERS[OutcomeKind.CANCELLED]]))
    return bytes(found.replace(bytes([_RUN_AGAIN]), b"\0"))
