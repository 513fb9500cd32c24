"""Rebuild a job that Redis has lost (wiped, damaged, replaced) from the job's files in S3.

Manifest and options show what was requested, the collected outcomes what was done. Outcomes of the last seconds before
the loss may not be collected; workers check those images again and find their outputs up to date.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from worker.contract import outcome_codec
from worker.contract.errors import ContractError, JobNotFound, JobStateError
from worker.contract.job import ENDED, JobStatus, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy, OutcomeKind, read_policy
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore

_FIELDS = ("options", "policy", "total", "bytes", "chunk_images")


@dataclass(frozen=True)
class _Request:
    """What was submitted, from the job's `job.json`."""

    options: JobOptions
    policy: JobPolicy
    total: int
    bytes: int
    chunk_images: int
    submitted_at: float


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
    summary = outcome_log.read_json(store, dest, job, outcome_log.SUMMARY) or {}
    epoch = _last_epoch(outcome_log.part_names(store, dest, job), summary)
    status = summary.get("status") if summary.get("epoch") == epoch else None
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
        options, policy = JobOptions.model_validate(facts["options"]), read_policy(facts["policy"])
    except ValidationError as error:
        raise ContractError(f"{folder}job.json does not have the format of this version: {error}") from error
    return _Request(
        options,
        policy,
        total=int(facts["total"]),
        bytes=int(facts["bytes"]),
        chunk_images=int(facts["chunk_images"]),
        submitted_at=float(facts.get("submitted_at", time.time())),
    )


def _last_epoch(part_names: list[str], summary: dict[str, Any]) -> int:
    """Return the newest epoch that left outcomes or a job summary."""
    of_parts = [int(name.partition("-")[0]) for name in part_names]
    return max([*of_parts, int(summary.get("epoch", 0))])


def _times(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("started_at", "completed_at", "core_seconds") if summary.get(name)}


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
