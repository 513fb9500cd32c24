"""After the last job: is every submission, every image and every execution accounted for?"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from chaos.load import SETS, Job
from chaos.s3_log import S3Log
from support.jobs import image_states
from worker.contract import output_names, redis_keys
from worker.contract.errors import MaskmillError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import outcome_log
from worker.contract.storage.s3 import ObjectStore

_EACH = 25
"""Of so many outputs one is read and decoded."""

_KINDS = tuple(kind.value for kind in OutcomeKind)


@dataclass
class Account:
    """What was found; empty `wrong` is what the run is for."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    submitted: int = 0
    lost: int = 0
    """Images without an outcome."""
    written_again: int = 0
    """Outputs written more than once, counted by each further time."""
    fetched: int = 0
    """Inputs read: executions begun."""
    fetched_again: int = 0
    """Executions begun beyond one for each image that was done."""
    most_writes: int = 0
    wrong: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return vars(self) | {"outcomes": dict(self.outcomes)}


def audit(ledger: Ledger, store: ObjectStore, s3: S3Log, jobs: Sequence[Job], bucket: str) -> Account:
    """Compare what was submitted, what the ledger counts, its states, the lists and the objects in S3."""
    account = Account()
    for job in jobs:
        try:
            _job(account, ledger, store, s3, job)
        except MaskmillError as error:
            account.lost += job.images
            account.wrong.append(f"job {job.number} {job.id}: {error}")
    for images in SETS:
        account.fetched += sum(s3.requests("GET", f"{bucket}/in-{images}/").values())
    done = account.outcomes["ok"] + account.outcomes["failed"]
    account.fetched_again = account.fetched - done
    account.wrong += _left_behind(ledger, jobs)
    return account


def _job(account: Account, ledger: Ledger, store: ObjectStore, s3: S3Log, job: Job) -> None:
    view = ledger.view(job.id)
    states = image_states(ledger, job.id, view.total or 0)
    counted = Counter(state.value for state in states if state is not None)
    shown = {kind: int(getattr(view, kind)) for kind in _KINDS}
    account.submitted += job.images
    account.outcomes.update(shown)
    lost = max(0, job.images - view.done)
    account.lost += lost
    dest = job.dest
    outputs = {item.key: item.size for item in store.list(dest) if not item.key.startswith(output_names.JOB_PREFIX)}
    writes = {
        key: count
        for key, count in s3.requests("PUT", f"{dest.bucket}/{dest.key}").items()
        if not key.startswith(output_names.JOB_PREFIX)
    }
    account.written_again += sum(count - 1 for count in writes.values())
    account.most_writes = max([account.most_writes, *writes.values()])
    evidence = _Evidence(view, job, states, counted, shown, outputs)
    problems = [*_uneven(evidence), *_untrue(store, evidence)]
    account.wrong += [f"job {job.number} {job.id}: {problem}" for problem in problems]
    account.jobs.append(
        {"number": job.number, "id": job.id, "status": view.status.value, "images": job.images, "tries": job.tries}
        | {"joined": job.joined, "fate": job.fate, "done_to_it": job.done_to_it, "trouble": job.trouble}
        | {"lost": lost, "outputs": len(outputs), "writes": sum(writes.values()), **shown}
    )


@dataclass(frozen=True)
class _Evidence:
    view: JobView
    job: Job
    states: Sequence[OutcomeKind | None]
    counted: Counter[str]
    """Of the states."""
    shown: dict[str, int]
    """By the ledger's counters."""
    outputs: dict[str, int]
    """Key -> size."""


def _uneven(found: _Evidence) -> Iterator[str]:
    """Numbers that do not agree."""
    view, shown, bad = found.view, found.shown, SETS[found.job.images]
    if not view.ended:
        yield f"has not ended: {view.status.value}, {view.done} of {view.total} images done"
    if view.total != found.job.images:
        yield f"{found.job.images} images were submitted, it has {view.total}"
    bits = {kind: found.counted[kind] for kind in _KINDS}
    # A cancelled job's images that never ran have no state of their own.
    if view.status is JobStatus.CANCELLED:
        bits["cancelled"] += found.states.count(None)
    if bits != shown:
        yield f"counters {shown} and states {bits} differ"
    if view.status is JobStatus.FINISHED and shown["failed"] != bad:
        yield f"{bad} images are bad, {shown['failed']} failed"
    if shown["dead"]:
        yield f"{shown['dead']} images dead, none of them deserves it"


def _untrue(store: ObjectStore, found: _Evidence) -> Iterator[str]:
    """What S3 does not bear out."""
    view, dest = found.view, found.job.dest
    good = {f"{index:04d}.png" for index, state in enumerate(found.states) if state is OutcomeKind.OK}
    if missing := sorted(good - found.outputs.keys()):
        yield f"ok without an output: {missing[:5]}"
    if empty := [key for key, size in found.outputs.items() if size == 0]:
        yield f"empty outputs: {empty[:5]}"
    # A cancelled job may have one that was written when its worker died, and that nobody did again.
    if view.status is JobStatus.FINISHED and (more := sorted(found.outputs.keys() - good)):
        yield f"outputs that nobody counts: {more[:5]}"
    yield from _unreadable(store, dest, sorted(good & found.outputs.keys())[::_EACH])
    if view.ended:
        facts = outcome_log.read_json(store, dest, view.job, outcome_log.SUMMARY) or {}
        if facts.get("counts") != found.shown:
            yield f"manifest.json says {facts.get('counts')}, the ledger {found.shown}"


def _unreadable(store: ObjectStore, dest: S3Url, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        data, _ = store.get(dest / key, max_bytes=10_000_000)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
        except OSError as error:
            yield f"{key} cannot be read: {error}"


def _left_behind(ledger: Ledger, jobs: Sequence[Job]) -> Iterator[str]:
    """Nothing may wait anywhere, and a job that has ended keeps its record, its states and its first failures."""
    client, prefix = ledger.connection.client, ledger.connection.prefix
    sizes = {name: client.llen(redis_keys.queue(prefix, name)) for name in redis_keys.QUEUES}
    sizes["unacked"] = client.hlen(redis_keys.unacked(prefix))
    sizes["unacked_index"] = client.zcard(f"{redis_keys.unacked(prefix)}_index")
    sizes["active jobs"] = client.scard(redis_keys.active(prefix))
    for name, size in sizes.items():
        if size:
            yield f"{size} left in {name}"
    for job in jobs:
        keys = redis_keys.job_keys(prefix, job.id)
        for name in ("attempts", "outstanding", "running", "suspects", "returned"):
            if client.exists(getattr(keys, name)):
                yield f"job {job.number}: {name} is left behind"
        if client.xlen(keys.log):
            yield f"job {job.number}: outcomes that are not in S3"
