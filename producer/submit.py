"""From a source to a running job.

    plan -> job record -> (upload) -> manifest parts in S3 -> first chunk messages; workers' feeder publishes the rest

Listing ends before anything is written. So a job that cannot be done correctly (two inputs for one output, no images, a
missing bucket) is refused before a worker has touched anything.
"""

from __future__ import annotations

import itertools
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery

from producer.backgrounds import OutputRequest
from producer.plan import Plan, make_plan
from producer.sources.item import Item, Skipped
from producer.sources.resolve import SourceSpec
from producer.sources.upload import upload
from producer.uptodate import UpToDateCheck
from worker.contract import output_names
from worker.contract.errors import BrokerUnavailable, JobNotFound, ServiceError, SourceError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog, blocker
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.queue import dispatcher
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore
from worker.contract.tracing import OFF, Tracing

OnProgress = Callable[[str, int], None]
"""Called with the phase (`listed`, `uploaded`) and the number of images so far."""

LISTING_SILENT_SECONDS = 60.0
"""After this time without a sign of life from its producer, a job that is being listed counts as left behind."""

_SUBMISSIONS = 3
"""Times that a job is submitted to Redis, because each failover may undo the last time."""

_RENEW_SECONDS = 10.0
_VIEW_TRIES, _VIEW_PAUSE_SECONDS = 10, 0.3


@dataclass(frozen=True)
class Submitted:
    """A submitted job."""

    view: JobView
    skipped: Skipped = field(default_factory=Counter)
    """Objects of the source that were left out, by reason."""

    joined: bool = False
    """The job existed already, under the same job key."""

    waits_for: str = ""
    """Id of an earlier job that writes to the same place and must end first; empty: none."""

    confirmed: bool = True
    """As many replicas of Redis have the job as `MASKMILL_REDIS__WAIT_REPLICAS` demands. If not, a failover right now
    may lose it; `producer recover` rebuilds it from S3."""

    @property
    def job(self) -> str:
        """Id of the job."""
        return self.view.job


@dataclass
class _NewJob:
    """A job that is being submitted."""

    job: str
    options: JobOptions
    policy: JobPolicy
    traceparent: str
    job_key: str = ""
    confirmed: bool = True

    def note_unconfirmed(self) -> None:
        self.confirmed = False


@dataclass(frozen=True)
class Submitter:
    """Submits jobs over existing connections."""

    store: ObjectStore
    ledger: Ledger
    celery: Celery
    chunk_images: int | None = None
    """Images in a chunk; None: chosen from the measured speed of the workers."""

    on_progress: OnProgress = lambda phase, count: None
    tracing: Tracing = OFF

    def submit(
        self,
        source: str | SourceSpec,
        dest: str,
        outputs: OutputOptions | OutputRequest,
        *,
        policy: JobPolicy | None = None,
        job_key: str = "",
        approve: Callable[[Plan], None] = lambda plan: None,
    ) -> Submitted:
        """List, check and start a job.

        Args:
            source: s3:// prefix, object or glob, local folder, file or glob (uploaded first), or a full specification.
            dest: s3:// prefix for the outputs.
            outputs: what to write for each image, and how.
            policy: how to run the job.
            job_key: if a job was submitted with this key before, return that job instead of a new one.
            approve: called with the plan before anything is written; an exception from it ends the submission.

        Raises:
            SourceError: nothing to submit, or the source cannot be read.
            OutputCollision: two inputs would write one output.
            SettingsError: source and destination overlap.
            ServiceError: S3 or Redis failed; the job, if any, is cancelled.
        """
        if known := self.join(job_key):
            return known
        request = OutputRequest(outputs) if isinstance(outputs, OutputOptions) else outputs
        with self.tracing.span("submit"), self.plan(source, dest, request) as plan:
            plan.check()
            approve(plan)
            complete = plan.with_outputs(request.with_background(self.store, plan.options.dest))
            return self.start(complete, policy=policy, job_key=job_key)

    def join(self, job_key: str) -> Submitted | None:
        """Return the job submitted with this key before, if any, without listing its source again."""
        holder = self.ledger.holder(job_key) if job_key else None
        view = self._live_holder(holder) if holder else None
        return self._joined(view) if view else None

    def plan(
        self,
        source: str | SourceSpec,
        dest: str,
        outputs: OutputOptions | OutputRequest,
        *,
        count_up_to_date: bool = False,
    ) -> Plan:
        """List and check, without writing anything to S3 or Redis. Close the plan after use.

        Args:
            source: as for `submit`.
            dest: s3:// prefix for the outputs.
            outputs: what to write for each image, and how.
            count_up_to_date: also list the destination, and count the images that workers would skip.

        Raises:
            SourceError: the source cannot be read.
            SettingsError: source and destination overlap.
            ServiceError: S3 failed.
        """
        request = OutputRequest(outputs) if isinstance(outputs, OutputOptions) else outputs
        target = S3Url.folder(dest)

        def start_check(options: JobOptions, root: S3Url | Path) -> UpToDateCheck:
            complete = request.with_background_if_uploaded(self.store, target)
            models = {worker.digest for worker in Fleet(self.ledger.connection).facts() if worker.digest}
            digest = None if complete is None else complete.digest()
            return UpToDateCheck(self.store, options, root, options_digest=digest, models=models)

        with self.tracing.span("list"):
            return make_plan(
                SourceSpec((source,)) if isinstance(source, str) else source,
                target,
                lambda origin: JobOptions(source=origin, dest=target, **request.options.model_dump()),
                self.store,
                on_listed=lambda count: self.on_progress("listed", count),
                start_check=start_check if count_up_to_date else None,
            )

    def start(self, plan: Plan, *, policy: JobPolicy | None = None, job_key: str = "") -> Submitted:
        """Submit a plan.

        Raises:
            SourceError: nothing to submit, or a local file cannot be read.
            OutputCollision: two inputs would write one output.
            ServiceError: S3 or Redis failed; the job, if any, is cancelled.
        """
        plan.check()
        job = new_job_id()
        if job_key and (other := self._claim(job_key, job)):
            return self._joined(other)
        with self.tracing.span("job", job=job) as traceparent:
            new = _NewJob(job, plan.options, policy or JobPolicy(), traceparent, job_key)
            view, waits_for = self._run(new, self._uploaded(plan))
        return Submitted(view, plan.skipped, waits_for=waits_for, confirmed=new.confirmed)

    def _joined(self, view: JobView) -> Submitted:
        # The submission that created it may not have lived to hear from the replicas.
        return Submitted(view, joined=True, confirmed=self.ledger.is_confirmed(view))

    def _uploaded(self, plan: Plan) -> Iterator[Item]:
        """Yield the items of a plan, each once a worker can read it."""
        if plan.folder is None:
            return iter(plan.spool)
        count = itertools.count(1)

        def on_file(sent: bool) -> None:
            self.on_progress("uploaded", next(count))

        return upload(self.store, plan.folder, iter(plan.spool), plan.options.source, on_file)

    def _claim(self, key: str, job: str) -> JobView | None:
        """Claim a job key for `job`; return the job that has it already, if that one is alive."""
        holder = self.ledger.claim(key, job)
        if holder == job:
            return None
        view = self._live_holder(holder, successor=job)
        if view is None:
            self.ledger.reassign_job_key(key, job)
        return view

    def _live_holder(self, holder: str, successor: str = "") -> JobView | None:
        """Return the job that has a key; None if it ended before it was submitted, or if its producer died.

        The producer of a job that is being listed may just have died, and the caller will rely on the job. So this
        waits for the producer's next sign of life, or for the silence after which the job is abandoned.
        """
        why = f"its producer went away while listing; submitted again{f' as {successor}' if successor else ''}"
        view = self._view_when_created(holder)
        before = view and view.beat_at
        while view is not None and view.status is JobStatus.LISTING and view.beat_at == before:
            if self.ledger.abandon_silent(holder, LISTING_SILENT_SECONDS, why):
                return None
            time.sleep(_VIEW_PAUSE_SECONDS)
            view = self._view_when_created(holder)
        return None if view is None or (view.status is JobStatus.CANCELLED and view.total is None) else view

    def _view_when_created(self, job: str) -> JobView | None:
        """Return the record of a job; it follows within moments after the job key is claimed."""
        for _ in range(_VIEW_TRIES):
            try:
                return self.ledger.view(job)
            except JobNotFound:
                time.sleep(_VIEW_PAUSE_SECONDS)
        return None

    def _run(self, new: _NewJob, listing: Iterator[Item]) -> tuple[JobView, str]:
        job = new.job
        if new.policy.skip_existing and self._has_no_outputs(new.options.dest):
            new.policy = new.policy.model_copy(update={"skip_existing": False})  # saves workers a HEAD for each output
        # Before the upload, so that the job key counts from now on.
        self._create(new)
        try:
            seal = self._register(new, listing)
            view = self._sealed(new, seal)
        except BaseException as error:  # however a submission is interrupted, its job must not stay open for ever
            self.ledger.abandon(job, f"not submitted: {str(error) or type(error).__name__}")
            raise
        try:
            with self.tracing.span("publish"):
                waits_for = self._publish(view)
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"job {job} is registered and runs as soon as the queue is back (`producer watch {job}`): {error}"
            ) from error
        except ServiceError as error:
            raise type(error)(
                f"job {job} is registered and its workers will run it (`producer watch {job}`): {error}"
            ) from error
        return self._sealed(new, seal), waits_for

    def _create(self, new: _NewJob, *, again: bool = False) -> None:
        self.ledger.create(new.job, new.options, new.policy, traceparent=new.traceparent, again=again)

    def _register(self, new: _NewJob, listing: Iterator[Item]) -> Callable[[], bool]:
        """Write manifest and `job.json`, and return the call that lets the job run."""
        job, options = new.job, new.options
        with self.tracing.span("manifest"):
            written = self._write_manifest(job, listing, options.dest)
        chunk_images = self._chunk_images(written.images)
        facts: dict[str, Any] = {
            "options": options.model_dump(mode="json"),
            "policy": new.policy.model_dump(mode="json"),
            "job": job,
            "total": written.images,
            "bytes": written.bytes,
            "chunk_images": chunk_images,
            "submitted_at": time.time(),
            **({"job_key": new.job_key} if new.job_key else {}),
        }
        outcome_log.write_json(self.store, options.dest, job, outcome_log.REQUEST, facts)
        return partial(
            self.ledger.seal,
            job,
            total=written.images,
            chunk_images=chunk_images,
            size=written.bytes,
            on_unconfirmed=new.note_unconfirmed,
        )

    def _sealed(self, new: _NewJob, seal: Callable[[], bool]) -> JobView:
        """Return the job once it runs, and submit it again to a new primary of Redis that lacks it.

        Raises:
            SourceError: it was cancelled while it was being listed.
        """
        for _ in range(_SUBMISSIONS):
            try:
                view = self.ledger.view(new.job)
            except JobNotFound:
                self._create(new, again=True)
            else:
                if view.status is not JobStatus.LISTING:
                    break
            seal()  # whether the job runs then, the next look decides
        view = self.ledger.view(new.job)
        if view.total is None:
            raise SourceError(f"job {new.job} was cancelled while it was being listed")
        return view

    def _has_no_outputs(self, dest: S3Url) -> bool:
        """Return whether only the metadata of jobs lies under the destination."""
        first = next(self.store.list(dest), None)
        # One key behind the metadata is enough: it may hold many uploads, which are not listed.
        behind = next(self.store.list(dest, after=output_names.BEHIND_JOBS), None)
        return behind is None and (first is None or first.key.startswith(output_names.JOB_PREFIX))

    def _chunk_images(self, total: int) -> int:
        if self.chunk_images is not None:
            return self.chunk_images
        workers = Fleet(self.ledger.connection).facts()
        speeds = [worker.seconds_per_image for worker in workers if worker.seconds_per_image]
        return dispatcher.chunk_images(total, len(workers), statistics.median(speeds) if speeds else None)

    def _write_manifest(self, job: str, listing: Iterator[Item], dest: S3Url) -> manifest.Writer:
        writer = manifest.Writer(self.store, dest, job)
        renewed = time.monotonic()
        for item in listing:
            writer.add(item)
            if time.monotonic() - renewed > _RENEW_SECONDS:
                self.ledger.renew_listing(job)
                renewed = time.monotonic()
        writer.close()
        return writer

    def _publish(self, view: JobView) -> str:
        """Publish the first window; if another job must end first, publish nothing and return its id.

        Beside other jobs only one chunk is published, in the express queue: so a job of one image need not wait for
        the chunks already queued. The feeder divides the window fairly between jobs, and publishes the rest; it
        publishes everything of a job beside more jobs than are read at once.
        """
        backlog = Backlog(self.ledger.connection)
        jobs = backlog.active()
        if not backlog.whole:  # the feeder finds out whether it must wait for one of the others
            return ""
        before = blocker(view, jobs)
        if before is not None:
            return before.job
        beside_others = any(job.outstanding for job in jobs if job.view.job != view.job)
        room = dispatcher.window(len(Fleet(self.ledger.connection).live())) - backlog.queued()
        chunks = backlog.take(view.job, 1 if beside_others else max(1, room), epoch=view.epoch)
        try:
            patience = self.ledger.connection.failover_seconds
            Dispatcher(self.store, self.celery, patience_seconds=patience).send(view, chunks, express=beside_others)
        except BrokerUnavailable:  # some may have been delivered; the reconciler finds the others
            raise
        except BaseException:  # the feeder publishes them
            backlog.untake(view.job, chunks, epoch=view.epoch)
            raise
        return ""


def new_job_id() -> str:
    """Return an id that sorts by time, is easy to read aloud, and is unique."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
