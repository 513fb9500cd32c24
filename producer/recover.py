"""Rebuild a job that Redis has lost (wiped, damaged, replaced) from the job's files in S3.

Manifest and options show what was requested, the collected outcomes what was done. Outcomes of the last seconds before
the loss may not be collected; workers check those images again and find their outputs up to date.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract import outcome_codec
from worker.contract.errors import ContractError, JobNotFound, JobStateError
from worker.contract.job import ENDED, MAX_EPOCH, MAX_IMAGES, JobStatus, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import LAST_TIME, MAX_CHUNK_IMAGES, JobOptions, OutcomeKind, StoredPolicy
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore

_FIELDS = ("options", "policy", "total", "bytes", "chunk_images")


class _Request(BaseModel):
    """What was submitted, from the job's `job.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    options: JobOptions
    policy: StoredPolicy
    total: int = Field(ge=0, le=MAX_IMAGES)
    bytes: int = Field(ge=0, le=2**63)
    chunk_images: int = Field(ge=1, le=MAX_CHUNK_IMAGES)
    submitted_at: float = Field(default_factory=time.time, ge=0, le=LAST_TIME)


class _Summary(BaseModel):
    """What `recover` takes from the job summary of an earlier end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int = Field(default=0, ge=0, le=MAX_EPOCH)
    status: str = ""
    started_at: float | None = Field(default=None, ge=0, le=LAST_TIME)
    completed_at: float | None = Field(default=None, ge=0, le=LAST_TIME)
    core_seconds: float | None = Field(default=None, ge=0, le=1e15)


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
        ContractError: the job's files were changed or replaced.
    """
    _refuse_known(ledger, job)
    request = _read_request(store, dest, job)
    outcomes = _newest_outcomes(outcome_log.kinds_newest_first(store, dest, job), request.total)
    counts = {kind: outcomes.count(number) for kind, number in outcome_codec.NUMBERS.items()}
    summary = _read_summary(store, dest, job)
    epoch = _last_epoch(outcome_log.part_names(store, dest, job), summary)
    status = summary.status if summary.epoch == epoch else None
    if status in (JobStatus.CANCELLED, JobStatus.STOPPED):
        counts[OutcomeKind.CANCELLED] = request.total - sum(counts.values())
    return ledger.restore(
        job,
        request.options,
        request.policy.model_copy(update={"skip_existing": True}),
        # A new epoch, so that old messages, if any are left, are not taken for those published from now on.
        fields={
            "epoch": epoch + 1,
            "total": request.total,
            "bytes": request.bytes,
            "chunk_images": request.chunk_images,
            "created_at": request.submitted_at,
            "submitted_at": request.submitted_at,
            **_times(summary),
        },
        counts=counts,
        outcomes=outcomes,
        ending=JobStatus(status) if status in ENDED else None,
    )


def _read_request(store: ObjectStore, dest: S3Url, job: str) -> _Request:
    folder = manifest.job_folder(dest, job)
    facts = outcome_log.read_json(store, dest, job, "job.json")
    if facts is None:
        raise JobNotFound(f"no job {job!r} under {dest}: {folder} has no job.json")
    if missing := [name for name in _FIELDS if name not in facts]:
        raise ContractError(f"{folder}job.json lacks {', '.join(missing)}")
    try:
        request = _Request.model_validate(facts)
    except ValidationError as error:
        raise ContractError(f"{folder}job.json does not have the format of this version: {error}") from error
    if request.options.dest != dest:  # whoever can write to one destination must not have another one overwritten
        raise ContractError(
            f"{folder}job.json names another destination, {request.options.dest}: it was changed or moved"
        )
    return request


def _read_summary(store: ObjectStore, dest: S3Url, job: str) -> _Summary:
    try:
        return _Summary.model_validate(outcome_log.read_json(store, dest, job, outcome_log.SUMMARY) or {})
    except ValidationError as error:
        place = manifest.job_folder(dest, job) / outcome_log.SUMMARY
        raise ContractError(f"{place} does not have the format of this version: {error}") from error


def _last_epoch(part_names: list[str], summary: _Summary) -> int:
    """Return the newest epoch that left outcomes or a job summary."""
    of_parts = [int(name.partition("-")[0]) for name in part_names]
    return max([*of_parts, summary.epoch])


def _times(summary: _Summary) -> dict[str, Any]:
    found = summary.model_dump(include={"started_at", "completed_at", "core_seconds"})
    return {name: value for name, value in found.items() if value}


def _refuse_known(ledger: Ledger, job: str) -> None:
    try:
        view = ledger.view(job)
    except JobNotFound:
        return
    raise JobStateError(f"job {job} is in Redis and {view.status.value}: there is nothing to recover")


def _newest_outcomes(verdicts: Iterator[tuple[int, OutcomeKind]], total: int) -> bytes:
    """Return the newest outcome of each image, one byte each; 0 without one."""
    found = bytearray(total)
    for index, kind in verdicts:  # newest first
        if index < total and not found[index]:
            found[index] = outcome_codec.NUMBERS[kind]
    return bytes(found)
