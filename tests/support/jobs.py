"""Jobs without a producer: views for pure functions, and jobs with a manifest in a real store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worker.contract import outcome_codec
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import ChunkLease, ChunkLedger, Verdict
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.records import JobRecord
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, Outcome, OutcomeKind, Priority
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectInfo, ObjectStore

HERE = "worker-0@here"


def active(
    job: str = "job",
    *,
    dest: str | None = None,
    priority: Priority = Priority.NORMAL,
    waiting: int = 10,
    outstanding: int = 0,
    status: JobStatus = JobStatus.RUNNING,
) -> JobRecord:
    """Return a job with `waiting` chunks to publish and `outstanding` chunks published."""
    view = JobView(
        job=job,
        status=status,
        options=JobOptions(source="s3://in/", dest=dest or f"s3://out/{job}/"),
        policy=JobPolicy(priority=priority),
        created_at=1.0,
        chunks=waiting,
    )
    return JobRecord(view, outstanding, 0, 0)


def submit(
    store: ObjectStore,
    ledger: Ledger,
    bucket: str,
    total: int,
    *,
    chunk_images: int = 3,
    job: str = "job",
    dest: str = "out",
    **policy: object,
) -> JobView:
    """Create a running job as `producer submit` leaves it, with no chunk published."""
    place = S3Url(bucket, f"{dest}/")
    options, rules = JobOptions(source=f"s3://{bucket}/in/", dest=str(place)), JobPolicy(**policy)
    writer = manifest.Writer(store, place, job)
    for index in range(total):
        writer.add(ObjectInfo(f"{index}.jpg", 5, "e", {}))
    writer.close()
    facts = {"options": options.model_dump(mode="json"), "policy": rules.model_dump(mode="json")}
    facts |= {"job": job, "total": total, "bytes": 5 * total, "chunk_images": chunk_images, "submitted_at": 1.0}
    outcome_log.write_json(store, place, job, "job.json", facts)
    ledger.create(job, options, rules)
    assert ledger.seal(job, total=total, chunk_images=chunk_images, size=5 * total)
    return ledger.view(job)


def message(view: JobView, chunk: int) -> ChunkMessage:
    """Return the message of one chunk of a job made by `submit`."""
    first = chunk * view.chunk_images
    last = min(first + view.chunk_images, view.total or 0)
    keys = tuple(f"{index}.jpg" for index in range(first, last))
    return ChunkMessage(job=view.job, epoch=view.epoch, chunk=chunk, start=first, keys=keys)


def outcome(index: int, kind: OutcomeKind = OutcomeKind.OK, code: str = "undecodable") -> Outcome:
    """Return the outcome of one image."""
    bad = kind in (OutcomeKind.FAILED, OutcomeKind.DEAD)
    outputs = () if bad else (f"{index}.png",)
    return Outcome(
        index=index, key=f"{index}.jpg", kind=kind, outputs=outputs, code=code if bad else "", message="why" * bad
    )


def lease(ledger: Ledger, message: ChunkMessage, worker: str = HERE) -> ChunkLease:
    """Return a lease that the ledger has not granted: of a late worker, or for a test that starts nothing."""
    return ChunkLease(ledger.connection, message, worker, Verdict.RUN)


def run(ledger: Ledger, view: JobView, chunks: Iterable[int], bad: Sequence[int] = ()) -> None:
    """Take, start, record and release chunks; images in `bad` fail."""
    Backlog(ledger.connection).take(view.job, view.chunks, epoch=view.epoch)
    for chunk in chunks:
        held = ChunkLedger(ledger.connection).start(message(view, chunk), HERE)
        for index in range(held.message.start, held.message.start + len(held.message.keys)):
            held.record([outcome(index, OutcomeKind.FAILED if index in bad else OutcomeKind.OK)])
        held.release(model="m", core_seconds=1.0, blameless=True)


def image_states(ledger: Ledger, job: str, total: int) -> list[OutcomeKind | None]:
    """Return the outcomes of all images of a job, in order."""
    return [outcome_codec.KINDS[state] for block in ledger.outcome_blocks(job, total) for state in block]
