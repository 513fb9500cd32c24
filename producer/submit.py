"""From a source to a running job.

    list -> manifest parts in S3 -> job record -> first chunk messages; workers' feeder publishes the rest

Listing ends before anything is published: what cannot be done right (two inputs for one output, no images, a bucket
that is not there) is refused before a worker has touched anything.
"""

from __future__ import annotations

import itertools
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery import Celery

from producer import sources
from producer.collisions import CollisionCheck
from worker.contract import dispatch, manifest, names, results
from worker.contract.backlog import Backlog, blocker
from worker.contract.dispatch import Dispatcher
from worker.contract.errors import BrokerUnavailable, JobNotFound, SettingsError, SourceError
from worker.contract.fleet import Fleet
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger import Ledger
from worker.contract.messages import JobOptions, JobPolicy
from worker.contract.objects import ObjectInfo, ObjectStore, S3Url
from worker.contract.outputs import OutputOptions

Progress = Callable[[str, int], None]
"""Called now and then with the phase (`listed`, `uploaded`) and the count so far."""

LISTING_SILENT_SECONDS = 60.0
"""Without a sign of life, after which a job that is being listed was left behind by a producer that died."""

_TELL_EVERY = 500
_BEAT_SECONDS = 10.0
_VIEW_TRIES, _VIEW_PAUSE_SECONDS = 10, 0.3


@dataclass(frozen=True)
class Submitted:
    """A job that is now running."""

    view: JobView
    passed_over: int = 0
    joined: bool = False
    """It was there already, under the same job key."""

    waits_for: str = ""
    """An earlier job that writes to the same place and has to end first."""


@dataclass(frozen=True)
class Submitter:
    """Submits jobs with the connections it is given."""

    store: ObjectStore
    ledger: Ledger
    celery: Celery
    chunk_images: int | None = None
    """Images in a chunk; None: by measured speed."""

    progress: Progress = lambda phase, count: None

    def submit(
        self, source: str, dest: str, outputs: OutputOptions, *, policy: JobPolicy | None = None, job_key: str = ""
    ) -> Submitted:
        """List, check and start.

        Args:
            source: s3:// prefix, or a local folder, which is uploaded first.
            dest: s3:// prefix that outputs go under.
            outputs: what to write for each image, and how.
            policy: how to run it.
            job_key: a job submitted with this key before is joined instead of making another.

        Raises:
            SourceError: nothing to submit, or the source cannot be read.
            OutputCollision: two inputs would write one output.
            SettingsError: source and destination overlap.
            ServiceError: S3 or Redis did not do their part; the job, if any, is cancelled.
        """
        job = new_job_id()
        if job_key and (known := self._known(job_key, job)):
            return Submitted(known, joined=True)
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
        view, waits_for = self._run(job, options, policy or JobPolicy(), listing, what=source)
        return Submitted(view, selection.passed_over, waits_for=waits_for)

    def _known(self, key: str, job: str) -> JobView | None:
        """The job that has the key, unless it came to nothing: then `job` gets it."""
        holder = self.ledger.claim(key, job)
        if holder == job:
            return None
        view = self._view_soon(holder)
        if view is None:
            self.ledger.reclaim(key, job)
            return None
        why = f"its producer went away while listing; submitted again as {job}"
        listed = self.ledger.abandon_silent(holder, LISTING_SILENT_SECONDS, why)
        if listed or (view.status is JobStatus.CANCELLED and view.total is None):
            self.ledger.reclaim(key, job)
            return None
        return view

    def _view_soon(self, job: str) -> JobView | None:
        """A job whose id was reserved a moment ago has its record a moment later."""
        for _ in range(_VIEW_TRIES):
            try:
                return self.ledger.view(job)
            except JobNotFound:
                time.sleep(_VIEW_PAUSE_SECONDS)
        return None

    def _run(
        self, job: str, options: JobOptions, policy: JobPolicy, listing: Iterator[ObjectInfo], *, what: str
    ) -> tuple[JobView, str]:
        target = S3Url.parse(options.dest)
        if policy.skip_existing and self._untouched(target):
            policy = policy.model_copy(update={"skip_existing": False})  # saves a look at each output that is not there
        self.ledger.create(job, options, policy)  # before listing, so that a job key is worth something from now on
        try:
            first = self._first(listing, what)
        except BaseException:
            self.ledger.forget(job)
            raise
        try:
            written = self._write_manifest(job, options, itertools.chain([first], listing), target)
            facts: dict[str, Any] = {
                "options": options.model_dump(mode="json"),
                "policy": policy.model_dump(mode="json"),
            }
            images = self._chunk_images(written.images)
            facts |= {"job": job, "total": written.images, "bytes": written.bytes, "chunk_images": images}
            results.write_facts(self.store, target, job, "job.json", facts | {"submitted_at": time.time()})
            if not self.ledger.seal(job, total=written.images, chunk_images=images, size=written.bytes):
                raise SourceError(f"job {job} was cancelled while it was being listed")
        except BaseException as error:  # whatever ends a submission half-way, its job must not stay open for ever
            self.ledger.abandon(job, f"not submitted: {str(error) or type(error).__name__}")
            raise
        try:
            waits_for = self._publish(self.ledger.view(job))
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"job {job} is registered and runs as soon as the queue is back (`producer watch {job}`): {error}"
            ) from error
        return self.ledger.view(job), waits_for

    @staticmethod
    def _first(listing: Iterator[ObjectInfo], what: str) -> ObjectInfo:
        first = next(listing, None)
        if first is None:
            raise SourceError(f"no images under {what}: names must end in {' '.join(sorted(sources.IMAGE_SUFFIXES))}")
        return first

    def _untouched(self, target: S3Url) -> bool:
        """Whether there are no outputs under the destination yet."""
        return all(item.key.startswith(names.JOB_PREFIX) for item in itertools.islice(self.store.list(target), 1000))

    def _chunk_images(self, total: int) -> int:
        if self.chunk_images is not None:
            return self.chunk_images
        workers = Fleet(self.ledger.link).facts()
        speeds = [worker.seconds_per_image for worker in workers if worker.seconds_per_image]
        return dispatch.chunk_images(total, len(workers), statistics.median(speeds) if speeds else None)

    def _write_manifest(
        self, job: str, options: JobOptions, listing: Iterator[ObjectInfo], target: S3Url
    ) -> manifest.Writer:
        writer = manifest.Writer(self.store, target, job)
        collisions = CollisionCheck()
        told = time.monotonic()
        for item in listing:
            for output in options.rival_keys(item.key):
                collisions.add(item.key, output)
            writer.add(item)
            if writer.images % _TELL_EVERY == 0:
                self.progress("listed", writer.images)
            if time.monotonic() - told > _BEAT_SECONDS:
                self.ledger.beat(job)
                told = time.monotonic()
        writer.close()
        self.progress("listed", writer.images)
        return writer

    def _publish(self, view: JobView) -> str:
        """Publish the first window, unless another job must end first: then its name."""
        backlog = Backlog(self.ledger.link)
        before = blocker(view, backlog.active())
        if before is not None:
            return before.job
        room = dispatch.window(len(Fleet(self.ledger.link).live())) - backlog.queued()
        chunks = backlog.take(view.job, max(1, room), epoch=view.epoch)
        Dispatcher(self.store, self.celery).send(view, chunks)
        return ""


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
