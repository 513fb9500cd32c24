"""Read the outcomes of a job's images, one at a time, at any job size.

An ended job is read from its lists in S3. A running job is read from the outcomes collected in S3 and those still in
Redis.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from producer.wording import iso_time
from worker.contract.errors import ContractError, JobNotFound, ObjectMissing, SourceError
from worker.contract.job import JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import jsonlines, outcome_log
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

_SUCCEEDED = frozenset({OutcomeKind.OK, OutcomeKind.SKIPPED})
_FAILED = frozenset({OutcomeKind.FAILED, OutcomeKind.DEAD})


def read_ended_job(store: ObjectStore, dest: S3Url, job: str) -> JobView:
    """Return an ended job from its job summary in S3. Redis forgets ended jobs after a while.

    Raises:
        JobNotFound: the destination has no such job, or the job has not ended.
        ContractError: the job summary was changed or replaced.
    """
    summary = outcome_log.read_json(store, dest, job, outcome_log.SUMMARY)
    if summary is None:
        raise JobNotFound(
            f"{job_folder(dest, job)} has no {outcome_log.SUMMARY}: either {dest} is not the destination of job {job}, "
            f"or the job has not ended (`producer recover {job} {dest}` continues it)"
        )
    try:
        counts = summary["counts"]
        renamed = {
            "codes": summary["failures_by_code"],
            "ending": summary["status"],
            "finished_at": summary["completed_at"],
        }
        return JobView.model_validate(summary | counts | renamed)
    except (KeyError, TypeError, ValidationError) as error:
        raise ContractError(
            f"{job_folder(dest, job)}{outcome_log.SUMMARY} cannot be read by this version of maskmill"
        ) from error


def read_outcomes(
    store: ObjectStore,
    ledger: Ledger,
    view: JobView,
    *,
    kinds: Iterable[OutcomeKind] = tuple(OutcomeKind),
    needs_review: bool = False,
) -> Iterator[Outcome]:
    """Yield each outcome of a job once, in no particular order; images without an outcome are left out.

    Memory does not grow with the job, except for one byte per image of a job that has not ended.

    Args:
        store: S3, which holds the job's folder.
        ledger: read only for a job that has not ended.
        view: the job.
        kinds: outcomes of these kinds only.
        needs_review: only outcomes whose mask needs review.

    Raises:
        SourceError: the job is still being listed, so its images are not known yet.
        ContractError: the job's objects in S3 were changed or replaced.
    """
    wanted = frozenset(kinds)
    if view.total is None:
        raise SourceError(f"job {view.job} is still being listed: wait until it runs")
    found = _from_lists(store, view, wanted, needs_review=needs_review) if view.ended else None
    for outcome in _so_far(store, ledger, view) if found is None else found:
        if outcome.kind in wanted and (not needs_review or (outcome.quality and outcome.quality.needs_review)):
            yield outcome


def _so_far(store: ObjectStore, ledger: Ledger, view: JobView) -> Iterator[Outcome]:
    # Redis is read before S3: an outcome that moves from Redis to S3 meanwhile is then found in one of the two.
    states = bytearray(b"".join(ledger.outcome_blocks(view.job, view.total or 0)))
    recent = Backlog(ledger.connection).recent(view.job)
    in_redis = filter(None, (Outcome.read_line(entry.dated) for entry in recent if entry.line))
    yield from outcome_log.final(store, view.options.dest, view.job, states, in_redis)


def _from_lists(
    store: ObjectStore, view: JobView, kinds: frozenset[OutcomeKind], *, needs_review: bool
) -> Iterator[Outcome] | None:
    """Return the outcomes in the job's lists, or None if S3 has no lists of the current epoch."""
    dest = view.options.dest
    summary = outcome_log.read_json(store, dest, view.job, outcome_log.SUMMARY) or {}
    if summary.get("epoch") != view.epoch:
        return None
    review = summary.get("review_list")
    names = [review] if needs_review and review else summary.get("lists", ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ContractError(f"{job_folder(dest, view.job)}{outcome_log.SUMMARY} names no lists: it was changed")
    lists = names if needs_review and review else [name for name in names if _holds(name, kinds)]
    return (outcome for name in lists for outcome in _read_list(store, job_folder(dest, view.job) / name))


def _holds(name: str, kinds: frozenset[OutcomeKind]) -> bool:
    """Return whether a list of this name may hold outcomes of one of these kinds."""
    if name.startswith(outcome_log.SUCCEEDED):
        return bool(kinds & _SUCCEEDED)
    if name == outcome_log.FAILED:
        return bool(kinds & _FAILED)
    return OutcomeKind.CANCELLED in kinds


def _read_list(store: ObjectStore, url: S3Url) -> Iterator[Outcome]:
    try:
        if url.key.endswith(".gz"):
            yield from jsonlines.read(store, url, Outcome)
        else:
            yield from _read_long_list(store, url)
    except ObjectMissing as error:
        raise ContractError(f"{url} is missing: it was deleted, or the job is being retried right now") from error


def _read_long_list(store: ObjectStore, url: S3Url) -> Iterator[Outcome]:
    """Read an uncompressed list from a temporary file, because it may not fit into memory."""
    with tempfile.TemporaryDirectory(prefix="maskmill-results-") as scratch:
        path = Path(scratch) / "list"
        store.download(url, path)
        with path.open("rb") as lines:
            for line in lines:
                try:
                    yield Outcome.model_validate_json(line)
                except ValidationError as error:
                    raise ContractError(f"{url} was changed: {line[:80]!r} is not an outcome") from error


def as_dict(outcome: Outcome, view: JobView) -> dict[str, Any]:
    """Return the fields of one JSON line; they are the same for every image."""
    quality = outcome.quality
    return {
        "index": outcome.index,
        "key": outcome.key,
        "outcome": outcome.kind.value,
        "code": outcome.code,
        "message": outcome.message,
        "notes": list(outcome.notes),
        "outputs": output_keys(outcome, view),
        "finished_at": iso_time(outcome.at),
        "seconds": round(outcome.seconds, 4),
        "stages": outcome.stages,
        "coverage": quality.coverage if quality else None,
        "soft": quality.soft if quality else None,
        "box": list(quality.box) if quality and quality.box else None,
        "flags": list(quality.flags) if quality else [],
        "needs_review": bool(quality and quality.needs_review),
    }


def output_keys(outcome: Outcome, view: JobView) -> dict[str, str]:
    """Return kind -> key of the image's outputs, relative to the destination; empty if it has none."""
    options = view.options
    if outcome.kind not in _SUCCEEDED:
        return {}
    return {kind.value: options.output_key(outcome.key, kind) for kind in options.outputs}
