"""From a source to a running job.

    list -> manifest parts in S3 -> job record -> chunk messages

Listing ends before anything is published: what cannot be done right (two inputs for one output, no images, a bucket
that is not there) is refused before a worker has touched anything.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery

from producer import sources
from producer.collisions import CollisionCheck
from worker.contract import broker, manifest
from worker.contract.errors import SettingsError, SourceError
from worker.contract.ledger import JobView, Ledger
from worker.contract.messages import ChunkMessage, JobOptions
from worker.contract.objects import ObjectInfo, ObjectStore, S3Url
from worker.contract.outputs import OutputOptions

Progress = Callable[[str, int], None]
"""Called now and then with the phase (`listed`, `uploaded`, `queued`) and the count so far."""

_TELL_EVERY = 500


@dataclass(frozen=True)
class Submitted:
    """A job that is now running."""

    view: JobView
    passed_over: int


@dataclass(frozen=True)
class Submitter:
    """Submits jobs with the connections it is given."""

    store: ObjectStore
    ledger: Ledger
    celery: Celery
    chunk_images: int
    progress: Progress = lambda phase, count: None

    def submit(self, source: str, dest: str, outputs: OutputOptions) -> Submitted:
        """List, check and start.

        Args:
            source: s3:// prefix, or a local folder, which is uploaded first.
            dest: s3:// prefix that outputs go under.
            outputs: what to write for each image, and how.

        Raises:
            SourceError: nothing to submit, or the source cannot be read.
            OutputCollision: two inputs would write one output.
            SettingsError: source and destination overlap.
            ServiceError: S3 or Redis did not do their part; the job, if any, is cancelled.
        """
        job = new_job_id()
        target = S3Url.folder(dest)
        if source.startswith("s3://"):
            origin = S3Url.folder(source)
            refuse_overlap(origin, target)
            self.store.check(target)
            selection = sources.Selection(self.store.list(origin))
            listing = iter(selection)
        else:
            folder = Path(source).expanduser()
            origin = manifest.job_folder(target, job) / "input/"
            self.store.check(target)
            selection = sources.Selection(sources.local_files(folder))
            listing = sources.upload(self.store, folder, iter(selection), origin)
        options = JobOptions(source=str(origin), dest=str(target), **outputs.model_dump())
        view = self._run(job, options, listing, what=source)
        return Submitted(view, selection.passed_over)

    def _run(self, job: str, options: JobOptions, listing: Iterator[ObjectInfo], *, what: str) -> JobView:
        first = next(listing, None)
        if first is None:
            raise SourceError(f"no images under {what}: names must end in {' '.join(sorted(sources.IMAGE_SUFFIXES))}")
        target = S3Url.parse(options.dest)
        self.ledger.create(job, options, chunk_images=self.chunk_images)
        try:
            written = self._write_manifest(job, options, itertools.chain([first], listing), target)
            chunks = -(-written.images // self.chunk_images)
            if not self.ledger.seal(job, total=written.images, chunks=chunks, size=written.bytes):
                raise SourceError(f"job {job} was cancelled while it was being listed")
            self._publish(job, target, written.images)
        except BaseException as error:  # whatever ends a submission half-way, its job must not stay open for ever
            self.ledger.abandon(job, f"not submitted: {str(error) or type(error).__name__}")
            raise
        return self.ledger.view(job)

    def _write_manifest(
        self, job: str, options: JobOptions, listing: Iterator[ObjectInfo], target: S3Url
    ) -> manifest.Writer:
        writer = manifest.Writer(self.store, target, job)
        collisions = CollisionCheck()
        for item in listing:
            for output in options.rival_keys(item.key):
                collisions.add(item.key, output)
            writer.add(item)
            if writer.images % _TELL_EVERY == 0:
                self.progress("listed", writer.images)
        writer.close()
        self.progress("listed", writer.images)
        return writer

    def _publish(self, job: str, target: S3Url, total: int) -> None:
        entries = manifest.read(self.store, target, job, total)
        keys = (entry.key for entry in entries)
        chunks = enumerate(iter(lambda: tuple(itertools.islice(keys, self.chunk_images)), ()))
        while batch := [
            ChunkMessage(job=job, chunk=number, start=number * self.chunk_images, keys=chunk)
            for number, chunk in itertools.islice(chunks, broker.PUBLISH_BATCH)
        ]:
            self.ledger.expect(job, [message.chunk for message in batch])
            broker.publish(self.celery, batch)
            self.progress("queued", batch[-1].start + len(batch[-1].keys))


def new_job_id() -> str:
    """Sorts by time, is easy to read out, and two submissions never share one."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def refuse_overlap(source: S3Url, dest: S3Url) -> None:
    """Inputs are never written: neither place may lie inside the other.

    Raises:
        SettingsError: one does.
    """
    if source.bucket == dest.bucket and (source.key.startswith(dest.key) or dest.key.startswith(source.key)):
        beside = f"beside the source, such as s3://{dest.bucket}/{source.key.rstrip('/')}-masks/"
        raise SettingsError(
            f"{source} and {dest} overlap, so an output could replace an input: choose a destination "
            f"{beside if source.key and not source.key.startswith(dest.key) else 'in another bucket'}"
        )
