"""The Python API: what the `producer` command does, for programs. Synchronous, typed, the same functions below.

from producer import Client, OutputOptions

with Client() as client:
job = client.submit("s3://shop/photos/", "s3://shop/masks/", job_key="masks-2026-01-31").job
view = client.wait(job)
for outcome in client.results(job, kinds=("failed", "dead")):
print(outcome.key, outcome.code, outcome.message)
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from producer.backgrounds import OutputRequest
from producer.download import Fetched, download
from producer.estimate import Estimate, estimated
from producer.outcomes import outcomes
from producer.plan import Plan
from producer.recover import recover
from producer.retry import retry
from producer.sources.filters import Filters
from producer.sources.lists import ListFormat
from producer.sources.resolve import SourceSpec
from producer.submit import Progress, Submitted, Submitter
from producer.watch import Sample, follow
from worker.contract import tracing
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy, Outcome, OutcomeKind
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import Settings, load
from worker.contract.storage.s3 import ObjectStore, S3Url

_REDIS_RETRIES = 12
"""Of each call: some 17 s, so that a restart of Redis does not end a program that has waited for hours."""


class Client:
    """One installation: its Redis and its S3. Thread-safe; make one per process, after any fork, and close it."""

    def __init__(self, settings: Settings | None = None, *, progress: Progress = lambda phase, count: None) -> None:
        """Connect lazily: nothing is sent before the first call.

        Args:
            settings: where Redis and S3 are; None: from the environment, as for the command.
            progress: told now and then what a submission is at (`listed`, `uploaded`) and the count so far.

        Raises:
            SettingsError: settings are missing or wrong.
        """
        self._settings = settings or load()
        self._store = ObjectStore(self._settings.s3)
        self._ledger = Ledger(self._settings.redis, retries=_REDIS_RETRIES, client_name="maskmill-client")
        self._celery = make_celery(self._settings, client_name="maskmill-client")
        self._progress = progress
        self._tracing = tracing.start("maskmill-producer")

    def submit(
        self,
        source: str | Path | SourceSpec,
        dest: str,
        *,
        outputs: OutputOptions | None = None,
        policy: JobPolicy | None = None,
        job_key: str = "",
        keys: Iterable[str] | None = None,
        filters: Filters | None = None,
        background_file: Path | None = None,
    ) -> Submitted:
        """Submit images, or join the job that was submitted with this key before.

        A program that may be run again after a crash gives a job key: whichever of its runs comes first submits, every
        later one gets the same job, running or ended. Without a key each call makes a job of its own, whose workers
        skip what is up to date.

        Args:
            source: s3:// prefix, object or glob, local folder, file or glob (uploaded first), or more in detail.
            dest: s3:// prefix that outputs go under.
            outputs: what to write for each image; None: masks in PNG.
            policy: how to run it; None: normal priority, outputs that are up to date are skipped.
            job_key: chosen by the caller, unique for what is wanted: a date, an order, the run of an orchestrator.
            keys: only these objects, relative to `source` or s3:// URLs below it.
            filters: what to take of the source.
            background_file: a picture of this machine to go behind composites; it is uploaded.

        Raises:
            SourceError: nothing to submit, or the source cannot be read.
            OutputCollision: two inputs would write one output.
            SettingsError: source and destination overlap, or options contradict each other.
            ServiceError: S3 or Redis did not do their part; the job, if any, is cancelled. With a key, call it again.
        """
        self._ledger.connection.check()
        request = OutputRequest(outputs or OutputOptions(), background_file)
        with _spec(source, keys, filters) as spec:
            return self._submitter.submit(spec, dest, request, policy=policy, job_key=job_key)

    def plan(
        self,
        source: str | Path | SourceSpec,
        dest: str,
        *,
        outputs: OutputOptions | None = None,
        keys: Iterable[str] | None = None,
        filters: Filters | None = None,
        background_file: Path | None = None,
        count_up_to_date: bool = False,
    ) -> Plan:
        """What `submit` would do: counts, bytes, collisions. Nothing is written; close the plan, or use it in `with`.

        With `count_up_to_date` the destination is listed too, to tell how many images workers would skip.

        Raises:
            SourceError: the source cannot be read.
            SettingsError: source and destination overlap.
            ServiceError: S3 did not do its part.
        """
        with _spec(source, keys, filters) as spec:
            request = OutputRequest(outputs or OutputOptions(), background_file)
            return self._submitter.plan(spec, dest, request, count_up_to_date=count_up_to_date)

    def estimate(self, plan: Plan) -> Estimate:
        """Time and core-hours that a plan would take, from measured speed and the workers that are there."""
        return estimated(plan, self._ledger)

    def find(self, job_key: str) -> JobView | None:
        """The job that was submitted with a key; None if there is none, or it came to nothing.

        Raises:
            ServiceError: Redis did not do its part.
        """
        found = self._submitter.join(job_key)
        return found.view if found else None

    def status(self, job: str) -> JobView:
        """Where a job is: one read, whatever its size.

        Raises:
            JobNotFound: unknown to this Redis.
            ServiceError: Redis did not do its part.
        """
        return self._ledger.view(job)

    def jobs(self, limit: int = 20) -> list[JobView]:
        """The newest jobs, newest first."""
        return self._ledger.jobs(limit)

    def wait(
        self,
        job: str,
        *,
        timeout: float | None = None,
        poll_seconds: float = 1.0,
        told: Callable[[Sample], None] = lambda sample: None,
    ) -> JobView:
        """Stay until a job has ended, however it ends: look at `status`, `failed` and `dead` of what is returned.

        Args:
            job: its id.
            timeout: seconds to stay at most; None: as long as it takes.
            poll_seconds: between two looks.
            told: called with each look: the job, its rate in images per second and the time left.

        Raises:
            TimeoutError: time is up; the job goes on and can be waited for again.
            JobNotFound: unknown to this Redis.
            ServiceError: Redis has been away for longer than a restart takes; the job goes on.
        """
        for sample in follow(self._ledger, job, interval=poll_seconds, timeout=timeout):
            told(sample)
            if sample.view.ended:
                return sample.view
        view = sample.view
        raise TimeoutError(
            f"job {job} is still {view.status.value} after {timeout:g} s, with {view.done:,} of "
            f"{'?' if view.total is None else f'{view.total:,}'} images done: it goes on, wait for it again"
        )

    def results(self, job: str, *, kinds: Iterable[OutcomeKind | str] = tuple(OutcomeKind)) -> Iterator[Outcome]:
        """What became of each image, streamed: constant memory but for a byte per image, in no particular order.

        Of a job that runs, those that have one now; of a job that has ended, all of them.

        Args:
            job: its id.
            kinds: outcomes to tell about: `ok`, `skipped`, `failed`, `dead`, `cancelled`.

        Raises:
            JobNotFound: unknown to this Redis.
            SourceError: the job has no list of images yet.
            ContractError: the job's files in S3 were changed or replaced.
            ServiceError: S3 or Redis did not do their part.
        """
        wanted = [OutcomeKind(kind) for kind in kinds]
        return outcomes(self._store, self._ledger, self._ledger.view(job), kinds=wanted)

    def download(self, job: str, folder: Path) -> Iterator[Fetched]:
        """Copy the outputs that are there so far to a local folder, keeping the tree; yields each complete file.

        Raises:
            JobNotFound: unknown to this Redis.
            SourceError: a file cannot be written, or a key cannot be a path below the folder.
        """
        return download(self._store, self._ledger, self._ledger.view(job), folder)

    def cancel(self, job: str, reason: str = "cancelled by a program") -> JobView:
        """Stop a job: images in work are finished, no further one begins. Again: nothing more happens.

        Raises:
            JobNotFound: unknown to this Redis.
            JobStateError: it has ended otherwise.
        """
        return self._ledger.cancel(job, reason)

    def pause(self, job: str) -> JobView:
        """Begin no further image until `resume`.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        return self._ledger.pause(job)

    def resume(self, job: str) -> JobView:
        """Go on with a paused job.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        return self._ledger.resume(job)

    def retry(self, job: str, *, failed: bool = True, cancelled: bool = True) -> JobView:
        """Run images of an ended job again; as it is if there are none.

        Args:
            job: its id.
            failed: images that failed or are dead.
            cancelled: images left undone because the job was cancelled or stopped.

        Raises:
            JobNotFound: unknown to this Redis.
            JobStateError: it has not ended.
        """
        return retry(self._store, self._ledger, job, failed=failed, cancelled=cancelled) or self.status(job)

    def recover(self, job: str, dest: str) -> JobView:
        """Rebuild a job that Redis has lost from what is in S3 under its destination, and go on with it.

        Raises:
            JobStateError: Redis knows the job.
            JobNotFound: there is no such job under the destination.
            ContractError: its files were changed or replaced.
        """
        return recover(self._store, self._ledger, S3Url.folder(dest), job)

    def close(self) -> None:
        """Close all connections."""
        self._tracing.close()
        self._celery.close()
        self._ledger.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _submitter(self) -> Submitter:
        return Submitter(
            self._store, self._ledger, self._celery, self._settings.jobs.chunk_images, self._progress, self._tracing
        )


@contextlib.contextmanager
def _spec(source: str | Path | SourceSpec, keys: Iterable[str] | None, filters: Filters | None) -> Iterator[SourceSpec]:
    """A source in detail; keys go through a list on disk, as those of a user do."""
    if isinstance(source, SourceSpec):
        if keys is not None or filters is not None:
            raise ValueError("give keys and filters in the SourceSpec, or beside a plain source")
        yield source
        return
    more: dict[str, Any] = {} if filters is None else {"filters": filters}
    if keys is None:
        yield SourceSpec((str(source),), **more)
        return
    with tempfile.NamedTemporaryFile("w", prefix="maskmill-keys-", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(key, ensure_ascii=False) + "\n" for key in keys)
        file.flush()
        yield SourceSpec((str(source),), file.name, ListFormat.JSONL, **more)
