"""After the last job: account for every submission, every image and every execution."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from chaos import repeats
from chaos.inject import Injected
from chaos.load import SETS, Job, size_of
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

_DOWNLOADS = 8
_KINDS = tuple(kind.value for kind in OutcomeKind)


@dataclass
class Account:
    """The findings. The run passes if `wrong` is empty."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    submitted: int = 0
    lost: int = 0
    """Images without an outcome."""
    unconfirmed: int = 0
    """Jobs of which `submit` said that too few replicas of Redis had confirmed them."""
    gone: int = 0
    """Those of them that a failover lost."""
    recovered: int = 0
    """Those of them that were recovered from S3."""
    written_again: int = 0
    """Writes of an output beyond its first."""
    fetched: int = 0
    """Reads of inputs, one for each execution that started."""
    fetched_again: int = 0
    """Reads beyond the first of each input."""
    made_again: dict[str, list[str]] = field(default_factory=dict)
    """Output that existed and was made again -> the requests for it and its input."""
    most_writes: int = 0
    """Most writes of one output."""
    repeats: list[dict[str, Any]] = field(default_factory=list)
    """Reads and writes beyond the first, by the fault that caused them (`chaos.repeats`)."""
    wrong: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return the fields for the report."""
        return vars(self) | {"outcomes": dict(self.outcomes)}


def audit(
    ledger: Ledger, store: ObjectStore, s3: S3Log, jobs: Sequence[Job], faults: Sequence[Injected] = ()
) -> Account:
    """Compare submissions, counters and states of the ledger, the job's lists and the objects in S3."""
    account = Account()
    for job in jobs:
        account.unconfirmed += not job.confirmed
        account.gone += job.gone
        account.recovered += job.recovered
        try:
            _job(account, ledger, store, s3, job)
        except MaskmillError as error:
            account.lost += job.images
            told = "`submit` said that it was safe" if job.confirmed else "it was not recovered"
            account.wrong.append(f"job {job.number} {job.id}: {error}: {told}")
    reads, writes = repeats.find(s3.log, jobs, faults)
    account.repeats = repeats.table(reads, writes, faults)
    account.fetched_again, account.written_again = len(reads), len(writes)
    account.wrong += _made_again(account.repeats)
    account.made_again = repeats.stories(writes, s3.log)
    account.wrong += _leftovers(ledger, jobs)
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
    account.fetched += sum(s3.requests("GET", f"{job.source.bucket}/{job.source.key}").values())
    account.most_writes = max([account.most_writes, *writes.values()])
    evidence = _Evidence(view, job, states, counted, shown, outputs)
    problems = [*_inconsistent_counts(evidence), *_wrong_objects(store, evidence)]
    account.wrong += [f"job {job.number} {job.id}: {problem}" for problem in problems]
    account.jobs.append(
        {"number": job.number, "id": job.id, "status": view.status.value, "images": job.images, "tries": job.tries}
        | {"joined": job.joined, "fate": job.fate, "actions": job.actions, "errors": job.errors}
        | {"confirmed": job.confirmed, "gone": job.gone, "recovered": job.recovered}
        | {"lost": lost, "outputs": len(outputs), "writes": sum(writes.values()), **shown}
    )


@dataclass(frozen=True)
class _Evidence:
    view: JobView
    job: Job
    states: Sequence[OutcomeKind | None]
    counted: Counter[str]
    """Outcome -> number of states."""
    shown: dict[str, int]
    """Outcome -> the ledger's counter."""
    outputs: dict[str, int]
    """Key -> size."""


def _inconsistent_counts(found: _Evidence) -> Iterator[str]:
    """Yield counts that do not agree."""
    view, shown, bad = found.view, found.shown, SETS[found.job.images]
    if not view.ended:
        yield f"has not ended: {view.status.value}, {view.done} of {view.total} images done"
    if view.total != found.job.images:
        yield f"{found.job.images} images were submitted, the job has {view.total}"
    bits = {kind: found.counted[kind] for kind in _KINDS}
    # Images of a cancelled job that never ran have no state.
    if view.status is JobStatus.CANCELLED:
        bits["cancelled"] += found.states.count(None)
    if bits != shown:
        yield f"counters {shown} and states {bits} differ"
    if view.status is JobStatus.FINISHED and shown["failed"] != bad:
        yield f"{bad} images are not decodable, {shown['failed']} failed"
    if shown["dead"]:
        yield f"{shown['dead']} images are dead, but none crashes its worker"


def _wrong_objects(store: ObjectStore, found: _Evidence) -> Iterator[str]:
    """Yield outcomes and counts that the objects in S3 contradict."""
    view, dest = found.view, found.job.dest
    good = {f"{index:04d}.png" for index, state in enumerate(found.states) if state is OutcomeKind.OK}
    if missing := sorted(good - found.outputs.keys()):
        yield f"ok without an output: {missing[:5]}"
    if empty := [key for key, size in found.outputs.items() if size == 0]:
        yield f"empty outputs: {empty[:5]}"
    # In a cancelled job, a worker may have died between the output and its outcome; the image did not run again.
    if view.status is JobStatus.FINISHED and (more := sorted(found.outputs.keys() - good)):
        yield f"outputs without an outcome: {more[:5]}"
    yield from _wrong_masks(store, dest, sorted(good & found.outputs.keys()))
    if view.ended:
        facts = outcome_log.read_json(store, dest, view.job, outcome_log.SUMMARY) or {}
        if facts.get("counts") != found.shown:
            yield f"manifest.json says {facts.get('counts')}, the ledger {found.shown}"


def _wrong_masks(store: ObjectStore, dest: S3Url, keys: Sequence[str]) -> Iterator[str]:
    """Yield masks that cannot be decoded, or that are those of another picture."""

    def problem(key: str) -> str | None:
        data, _ = store.get(dest / key, max_bytes=10_000_000)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
        except OSError as error:
            return f"{key} cannot be decoded: {error}"
        if picture.size != (expected := size_of(int(Path(key).stem))):
            return f"{key} is {picture.size}, its picture {expected}: it is the mask of another picture"
        return None

    with ThreadPoolExecutor(_DOWNLOADS) as threads:
        yield from filter(None, threads.map(problem, keys))


def _made_again(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield faults after which images ran again whose outputs existed."""
    for row in rows:
        if row["made_again"]:
            yield f"{row['made_again']} outputs existed and were made again: {row['kind']}"


def _leftovers(ledger: Ledger, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield messages that still wait, and keys that an ended job should no longer have."""
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
