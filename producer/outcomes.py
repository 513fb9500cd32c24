"""What became of the images of a job, one after the other, at any size.

Of a job that has ended from its lists in S3; of one that runs from what is collected in S3 and what waits in Redis.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.contract.errors import ContractError, JobNotFound, ObjectMissing, SourceError
from worker.contract.job import JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.storage import jsonlines, outcome_log
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore, S3Url

ALL = frozenset(OutcomeKind)

_GOOD = frozenset({OutcomeKind.OK, OutcomeKind.SKIPPED})
_BAD = frozenset({OutcomeKind.FAILED, OutcomeKind.DEAD})


def recall(store: ObjectStore, dest: S3Url, job: str) -> JobView:
    """A job that has ended, from what it left in S3: Redis forgets jobs after a while.

    Raises:
        JobNotFound: there is no such job under the destination, or it has not ended.
        ContractError: its `manifest.json` was changed or replaced.
    """
    facts = outcome_log.read_facts(store, dest, job, "manifest.json")
    if facts is None:
        raise JobNotFound(
            f"{job_folder(dest, job)} has no manifest.json: either {dest} is not where job {job} writes to, or it has "
            f"not ended (`producer recover {job} {dest}` goes on with it)"
        )
    try:
        counts = facts["counts"]
        named = {"codes": facts["failures_by_code"], "ending": facts["status"], "finished_at": facts["completed_at"]}
        return JobView.model_validate(facts | counts | named)
    except (KeyError, TypeError, ValidationError) as error:
        raise ContractError(f"{job_folder(dest, job)}manifest.json is not of this version") from error


def outcomes(
    store: ObjectStore,
    ledger: Ledger,
    view: JobView,
    *,
    kinds: Iterable[OutcomeKind] = ALL,
    needs_review: bool = False,
) -> Iterator[Outcome]:
    """Outcomes of a job in no particular order, each image once; those without an outcome yet are left out.

    Memory does not grow with the job, but for a byte per image of one that has not ended.

    Args:
        store: where its objects are.
        ledger: asked only about a job that has not ended.
        view: the job.
        kinds: that are wanted.
        needs_review: only those whose mask a person should look at.

    Raises:
        SourceError: the job has no list of images yet.
        ContractError: its objects were changed by somebody else.
    """
    wanted = frozenset(kinds)
    if view.total is None:
        raise SourceError(f"job {view.job} is still being listed: wait for it to run")
    found = _from_lists(store, view, wanted, needs_review=needs_review) if view.ended else None
    for outcome in _so_far(store, ledger, view) if found is None else found:
        if outcome.kind in wanted and (not needs_review or (outcome.quality and outcome.quality.needs_review)):
            yield outcome


def _so_far(store: ObjectStore, ledger: Ledger, view: JobView) -> Iterator[Outcome]:
    # In this order: what is brought from Redis to S3 meanwhile is found in one place or the other.
    known = bytearray(b"".join(ledger.outcome_blocks(view.job, view.total or 0)))
    waiting = (Outcome.model_validate_json(entry.dated) for entry in Backlog(ledger.connection).recent(view.job))
    yield from outcome_log.final(store, S3Url.parse(view.options.dest), view.job, known, waiting)


def _from_lists(
    store: ObjectStore, view: JobView, kinds: frozenset[OutcomeKind], *, needs_review: bool
) -> Iterator[Outcome] | None:
    """None if there are no lists of this ending, as when somebody has removed them."""
    dest = S3Url.parse(view.options.dest)
    facts = outcome_log.read_facts(store, dest, view.job, "manifest.json") or {}
    if facts.get("epoch") != view.epoch:
        return None
    review = facts.get("review_list")
    lists = [review] if needs_review and review else [name for name in facts.get("lists", ()) if _holds(name, kinds)]
    return (found for name in lists for found in _read(store, job_folder(dest, view.job) / name))


def _holds(name: str, kinds: frozenset[OutcomeKind]) -> bool:
    held = (
        _GOOD
        if name.startswith(outcome_log.SUCCEEDED)
        else _BAD
        if name == outcome_log.FAILED
        else {OutcomeKind.CANCELLED}
    )
    return bool(kinds & held)


def _read(store: ObjectStore, place: S3Url) -> Iterator[Outcome]:
    try:
        if place.key.endswith(".gz"):
            yield from jsonlines.read(store, place, Outcome)
        else:
            yield from _read_long(store, place)
    except ObjectMissing as error:
        raise ContractError(f"{place} is gone: it was removed, or the job is run again at this moment") from error


def _read_long(store: ObjectStore, place: S3Url) -> Iterator[Outcome]:
    """By way of this disk, since it may be longer than memory."""
    with tempfile.TemporaryDirectory(prefix="maskmill-results-") as scratch:
        path = Path(scratch) / "list"
        store.download(place, path)
        with path.open("rb") as lines:
            for line in lines:
                try:
                    yield Outcome.model_validate_json(line)
                except ValidationError as error:
                    raise ContractError(f"{place} was changed: {line[:80]!r} is not an outcome") from error


def as_dict(outcome: Outcome, view: JobView) -> dict[str, Any]:
    """For one JSON line: the same fields for every image."""
    quality = outcome.quality
    return {
        "index": outcome.index,
        "key": outcome.key,
        "outcome": outcome.kind.value,
        "code": outcome.code,
        "message": outcome.message,
        "outputs": outputs(outcome, view),
        "finished_at": outcome.at,
        "seconds": round(outcome.seconds, 4),
        "stages": outcome.stages,
        "coverage": quality.coverage if quality else None,
        "soft": quality.soft if quality else None,
        "flags": list(quality.flags) if quality else [],
        "needs_review": bool(quality and quality.needs_review),
    }


def outputs(outcome: Outcome, view: JobView) -> dict[str, str]:
    """Keys of its outputs by kind, relative to the destination."""
    options = view.options
    if outcome.kind not in _GOOD:
        return {}
    return {kind.value: options.output_key(outcome.key, kind) for kind in options.outputs}
