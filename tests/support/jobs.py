"""Jobs without a producer: views for pure functions, and jobs whose manifest is in a real store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import ActiveJob, Backlog
from worker.contract.ledger.jobs import Ledger
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
) -> ActiveJob:
    """A job of which so much waits to be published and is on its way."""
    view = JobView(
        job=job,
        status=status,
        options=JobOptions(source="s3://in/", dest=dest or f"s3://out/{job}/"),
        policy=JobPolicy(priority=priority),
        created_at=1.0,
        chunks=waiting,
    )
    return ActiveJob(view, outstanding, 0, 0)


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
    """A running job, as `producer submit` leaves it, with nothing published."""
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
    """One chunk of a job made by `submit`."""
    first = chunk * view.chunk_images
    last = min(first + view.chunk_images, view.total or 0)
    keys = tuple(f"{index}.jpg" for index in range(first, last))
    return ChunkMessage(job=view.job, epoch=view.epoch, chunk=chunk, start=first, keys=keys)


def outcome(index: int, kind: OutcomeKind = OutcomeKind.OK, code: str = "undecodable") -> Outcome:
    """One image's."""
    bad = kind in (OutcomeKind.FAILED, OutcomeKind.DEAD)
    outputs = () if bad else (f"{index}.png",)
    return Outcome(
        index=index, key=f"{index}.jpg", kind=kind, outputs=outputs, code=code if bad else "", message="why" * bad
    )


def run(ledger: Ledger, view: JobView, chunks: Iterable[int], bad: Sequence[int] = ()) -> None:
    """Take, start, record and let go of chunks; images in `bad` fail."""
    Backlog(ledger.link).take(view.job, view.chunks, epoch=view.epoch)
    for chunk in chunks:
        work = message(view, chunk)
        ledger.start(work, HERE)
        for index in range(work.start, work.start + len(work.keys)):
            ledger.record(work, [outcome(index, OutcomeKind.FAILED if index in bad else OutcomeKind.OK)])
        ledger.release(work, HERE, model="m", core_seconds=1.0, blameless=True)
