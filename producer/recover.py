"""Rebuild a job that Redis has forgotten (wiped, lost, replaced) from what is in S3.

Manifest and options say what was asked, the collected outcomes what was done. What was done in the last seconds before
the loss and not collected is looked at again by the workers, who find its outputs up to date.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from worker.contract import outcome_codec
from worker.contract.errors import ContractError, JobNotFound, JobStateError
from worker.contract.job import ENDED, JobStatus, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy, OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore

_FACTS = ("options", "policy", "total", "bytes", "chunk_images")


def recover(store: ObjectStore, ledger: Ledger, dest: S3Url, job: str) -> JobView:
    """Put a job back into Redis, with every outcome that is known.

    Args:
        store: where the job's folder is.
        ledger: that has lost it.
        dest: destination of the job.
        job: its id.

    Returns:
        The job: running if images are left to do, otherwise as it ended.

    Raises:
        JobStateError: Redis knows the job.
        JobNotFound: there is no such job under the destination.
        ContractError: its files were changed or replaced.
    """
    _refuse_known(ledger, job)
    facts = outcome_log.read_facts(store, dest, job, "job.json")
    if facts is None:
        raise JobNotFound(f"no job {job!r} under {dest}: {manifest.job_folder(dest, job)} has no job.json")
    if missing := [name for name in _FACTS if name not in facts]:
        raise ContractError(f"{manifest.job_folder(dest, job)}job.json lacks {', '.join(missing)}")
    try:
        options, policy = JobOptions.model_validate(facts["options"]), JobPolicy.model_validate(facts["policy"])
    except ValidationError as error:
        raise ContractError(f"{manifest.job_folder(dest, job)}job.json is not of this version: {error}") from error
    total = int(facts["total"])
    outcomes = _last_of_each(outcome_log.verdicts(store, dest, job), total)
    counts = {kind: outcomes.count(number) for kind, number in outcome_codec.NUMBERS.items()}
    ended = outcome_log.read_facts(store, dest, job, "manifest.json") or {}
    names = outcome_log.part_names(store, dest, job)
    epoch = max([int(name.partition("-")[0]) for name in names], default=0)
    epoch = max(epoch, int(ended.get("epoch", 0)))
    over = ended.get("status") if ended.get("epoch") == epoch else None
    if over in (JobStatus.CANCELLED, JobStatus.STOPPED):
        counts[OutcomeKind.CANCELLED] = total - sum(counts.values())
    return ledger.restore(
        job,
        options,
        policy.model_copy(update={"skip_existing": True}),
        # Messages of before, if any are left anywhere, must not be taken for those published from here on.
        fields={
            "epoch": epoch + 1,
            "total": total,
            "bytes": int(facts["bytes"]),
            "chunk_images": int(facts["chunk_images"]),
            "created_at": float(facts.get("submitted_at", time.time())),
            "submitted_at": float(facts.get("submitted_at", time.time())),
            **_times(ended),
        },
        counts=counts,
        outcomes=outcomes,
        ending=JobStatus(over) if over in ENDED else None,
    )


def _times(ended: dict[str, Any]) -> dict[str, Any]:
    return {name: ended[name] for name in ("started_at", "completed_at", "core_seconds") if ended.get(name)}


def _refuse_known(ledger: Ledger, job: str) -> None:
    try:
        view = ledger.view(job)
    except JobNotFound:
        return
    raise JobStateError(f"job {job} is known and {view.status.value}: there is nothing to recover")


def _last_of_each(verdicts: Iterator[tuple[int, OutcomeKind]], total: int) -> bytes:
    """State of each image, one byte each."""
    found = bytearray(total)
    for index, kind in verdicts:  # newest first
        if index < total and not found[index]:
            found[index] = outcome_codec.NUMBERS[kind]
    return bytes(found)
