"""From a source to a running job.

    plan -> job record -> (upload) -> manifest parts in S3 -> first chunk messages; workers' feeder publishes the rest

Listing ends before anything is written: what cannot be done right (two inputs for one output, no images, a bucket
that is not there) is refused before a worker has touched anything.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery import Celery

from producer.backgrounds import OutputRequest
from producer.plan import Plan, make_plan
from producer.sources.filters import Skipped
from producer.sources.item import Item
from producer.sources.resolve import SourceSpec
from producer.sources.upload import upload
from producer.uptodate import OutputCheck
from worker.contract import output_names
from worker.contract.errors import BrokerUnavailable, JobNotFound, SourceError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog, blocker
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.queue import dispatcher
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore, S3Url
from worker.contract.tracing import OFF, Tracing

Progress = Callable[[str, int], None]
"""Called now and then with the phase (`listed`, `uploaded`) and the count so far."""

LISTING_SILENT_SECONDS = 60.0
"""Without a sign of life, after which a job that is being listed was left behind by a producer that died."""

_BEAT_SECONDS = 10.0
_VIEW_TRIES, _VIEW_PAUSE_SECONDS = 10, 0.3


@dataclass(frozen=True)
class Submitted:
    """A job that is now running."""

    view: JobView
    skipped: Skipped = field(default_factory=Counter)
    """What of the source was left out, by reason."""

    joined: bool = False
    """It was there already, under the same job key."""

    waits_for: str = ""
    """An earlier job that writes to the same place and has to end first."""

    @property
    def job(self) -> str:
        """Its id."""
        return self.view.job


@dataclass(frozen=True)
class Submitter:
    """Submits jobs with the connections it is given."""

    store: ObjectStore
    ledger: Ledger
    celery: Celery
    chunk_images: int | None = None
    """Images in a chunk; None: by measured speed."""

    progress: Progress = lambda phase, count: None
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
        """List, check and start.

        Args:
            source: s3:// prefix, object or glob, local folder, file or glob (uploaded first), or more in detail.
            dest: s3:// prefix that outputs go under.
            outputs: what to write for each image, and how.
            policy: how to run it.
            job_key: a job submitted with this key before is joined instead of making another.
            approve: told the plan before anything is written; what it raises ends the submission.

        Raises:
            SourceError: nothing to submit, or the source cannot be read.
            OutputCollision: two inputs would write one output.
            SettingsError: source and destination overlap.
            ServiceError: S3 or Redis did not do their part; the job, if any, is cancelled.
        """
        if known := self.join(job_key):
            return known
        request = OutputRequest(outputs) if isinstance(outputs, OutputOptions) else outputs
        with self.tracing.span("submit"), self.plan(source, dest, request) as plan:
            plan.check()
            approve(plan)
            settled = plan.with_outputs(request.settled(self.store, dest))
            return self.start(settled, policy=policy, job_key=job_key)

    def join(self, job_key: str) -> Submitted | None:
        """The job submitted with this key before, so that its source need not be listed again."""
        holder = self.ledger.holder(job_key) if job_key else None
        view = self._alive(holder) if holder else None
        return Submitted(view, joined=True) if view else None

    def plan(
        self,
        source: str | SourceSpec,
        dest: str,
        outputs: OutputOptions | OutputRequest,
        *,
        count_up_to_date: bool = False,
    ) -> Plan:
        """List and check, without leaving a trace. Close the plan when it is not needed any more.

        Args:
            source: as for `submit`.
            dest: s3:// prefix that outputs go under.
            outputs: what to write for each image, and how.
            count_up_to_date: list the destination too, and tell how many images workers would skip.

        Raises:
            SourceError: the source cannot be read.
            SettingsError: source and destination overlap.
            ServiceError: S3 did not do its part.
        """
        request = OutputRequest(outputs) if isinstance(outputs, OutputOptions) else outputs
        target = S3Url.folder(dest)

        def look(options: JobOptions, root: S3Url | Path) -> OutputCheck:
            foreseen = request.foreseen(self.store, dest)
            models = {worker.digest for worker in Fleet(self.ledger.connection).facts() if worker.digest}
            digest = None if foreseen is None else foreseen.digest()
            return OutputCheck(self.store, options, root, options_digest=digest, models=models)

        with self.tracing.span("list"):
            return make_plan(
                SourceSpec((source,)) if isinstance(source, str) else source,
                target,
                lambda origin: JobOptions(source=str(origin), dest=str(target), **request.options.model_dump()),
                self.store,
                listed=lambda count: self.progress("listed", count),
                look=look if count_up_to_date else None,
            )

    def start(self, plan: Plan, *, policy: JobPolicy | None = None, job_key: str = "") -> Submitted:
        """Submit what was planned.

        Raises:
            SourceError: nothing to submit, or a local file cannot be read.
            OutputCollision: two inputs would write one output.
            ServiceError: S3 or Redis did not do their part; the job, if any, is cancelled.
        """
        plan.check()
        job = new_job_id()
        if job_key and (known := self._known(job_key, job)):
            return Submitted(known, joined=True)
        with self.tracing.span("job", job=job) as traceparent:
            view, waits_for = self._run(job, plan.options, policy or JobPolicy(), self._ready(plan), traceparent)
        return Submitted(view, plan.skipped, waits_for=waits_for)

    def _ready(self, plan: Plan) -> Iterator[Item]:
        """The items of a plan, each when a worker can get at it."""
        if plan.folder is None:
            return iter(plan.spool)
        done = Counter[bool]()

        def told(sent: bool) -> None:
            done[sent] += 1
            self.progress("uploaded", done.total())

        return upload(self.store, plan.folder, iter(plan.spool), S3Url.parse(plan.options.source), told)

    def _known(self, key: str, job: str) -> JobView | None:
        """The job that has the key, unless it came to nothing: then `job` gets it."""
        holder = self.ledger.claim(key, job)
        if holder == job:
            return None
        view = self._alive(holder, successor=job)
        if view is None:
            self.ledger.reassign_job_key(key, job)
        return view

    def _alive(self, holder: str, successor: str = "") -> JobView | None:
        """The job that has a key, unless it came to nothing; one left behind while it was being listed is ended.

        The producer of a job that is being listed may have died a moment ago, and whoever is told that the job is
        there relies on it: so its next sign of life is waited for, or the silence after which the job can be taken.
        """
        why = f"its producer went away while listing; submitted again{f' as {successor}' if successor else ''}"
        view = self._view_soon(holder)
        before = view and view.beat_at
        while view is not None and view.status is JobStatus.LISTING and view.beat_at == before:
            if self.ledger.abandon_silent(holder, LISTING_SILENT_SECONDS, why):
                return None
            time.sleep(_VIEW_PAUSE_SECONDS)
            view = self._view_soon(holder)
        return None if view is None or (view.status is JobStatus.CANCELLED and view.total is None) else view

    def _view_soon(self, job: str) -> JobView | None:
        """A job whose id was reserved a moment ago has its record a moment later."""
        for _ in range(_VIEW_TRIES):
            try:
                return self.ledger.view(job)
            except JobNotFound:
                time.sleep(_VIEW_PAUSE_SECONDS)
        return None

    def _run(
        self, job: str, options: JobOptions, policy: JobPolicy, listing: Iterator[Item], traceparent: str
    ) -> tuple[JobView, str]:
        target = S3Url.parse(options.dest)
        if policy.skip_existing and self._untouched(target):
            policy = policy.model_copy(update={"skip_existing": False})  # saves a look at each output that is not there
        # Before uploading, so that a job key is worth something from now on.
        self.ledger.create(job, options, policy, traceparent=traceparent)
        try:
            with self.tracing.span("manifest"):
                written = self._write_manifest(job, listing, target)
            facts: dict[str, Any] = {
                "options": options.model_dump(mode="json"),
                "policy": policy.model_dump(mode="json"),
            }
            images = self._chunk_images(written.images)
            facts |= {"job": job, "total": written.images, "bytes": written.bytes, "chunk_images": images}
            outcome_log.write_facts(self.store, target, job, "job.json", facts | {"submitted_at": time.time()})
            if not self.ledger.seal(job, total=written.images, chunk_images=images, size=written.bytes):
                raise SourceError(f"job {job} was cancelled while it was being listed")
        except BaseException as error:  # whatever ends a submission half-way, its job must not stay open for ever
            self.ledger.abandon(job, f"not submitted: {str(error) or type(error).__name__}")
            raise
        try:
            with self.tracing.span("publish"):
                waits_for = self._publish(self.ledger.view(job))
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"job {job} is registered and runs as soon as the queue is back (`producer watch {job}`): {error}"
            ) from error
        return self.ledger.view(job), waits_for

    def _untouched(self, target: S3Url) -> bool:
        """Whether there are no outputs under the destination yet."""
        first = next(self.store.list(target), None)
        behind = next(
            self.store.list(target, after=output_names.BEHIND_JOBS), None
        )  # uploads may be many: not looked through
        return behind is None and (first is None or first.key.startswith(output_names.JOB_PREFIX))

    def _chunk_images(self, total: int) -> int:
        if self.chunk_images is not None:
            return self.chunk_images
        workers = Fleet(self.ledger.connection).facts()
        speeds = [worker.seconds_per_image for worker in workers if worker.seconds_per_image]
        return dispatcher.chunk_images(total, len(workers), statistics.median(speeds) if speeds else None)

    def _write_manifest(self, job: str, listing: Iterator[Item], target: S3Url) -> manifest.Writer:
        writer = manifest.Writer(self.store, target, job)
        told = time.monotonic()
        for item in listing:
            writer.add(item)
            if time.monotonic() - told > _BEAT_SECONDS:
                self.ledger.renew_listing(job)
                told = time.monotonic()
        writer.close()
        return writer

    def _publish(self, view: JobView) -> str:
        """Publish the first window, unless another job must end first: then its name.

        Beside others it is one chunk, which they let pass: a job of one image need not wait until those in the queue
        are done. The feeder, which knows what is fair, publishes the rest.
        """
        backlog = Backlog(self.ledger.connection)
        jobs = backlog.active()
        before = blocker(view, jobs)
        if before is not None:
            return before.job
        beside_others = any(job.outstanding for job in jobs if job.view.job != view.job)
        room = dispatcher.window(len(Fleet(self.ledger.connection).live())) - backlog.queued()
        chunks = backlog.take(view.job, 1 if beside_others else max(1, room), epoch=view.epoch)
        Dispatcher(self.store, self.celery).send(view, chunks, express=beside_others)
        return ""


def new_job_id() -> str:
    """Sorts by time, is easy to read out, and two submissions never share one."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
