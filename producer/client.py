"""The Python API: what the `producer` command does, for programs. It is synchronous and typed.

Example (a test runs it):

    from producer import Client

    with Client() as client:
        job = client.submit("s3://shop/photos/", "s3://shop/masks/", job_key="masks-2026-01-31").job
        view = client.wait(job)
        print(f"{view.done} images done, {view.failed + view.dead} failed")
        for outcome in client.results(job, kinds=("failed", "dead")):
            print(outcome.key, outcome.code, outcome.message)
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from producer import live
from producer.backgrounds import OutputRequest
from producer.download import Downloaded, OnFile, download_all
from producer.estimate import Estimate, estimate_plan
from producer.forget import forget
from producer.outcomes import read_outcomes
from producer.plan import Plan
from producer.recover import recover
from producer.recover_all import FoundJob, recover_all
from producer.retry import retry
from producer.sources.filters import Filters
from producer.sources.list_formats import ListFormat, key_lines
from producer.sources.resolve import SourceSpec
from producer.sources.units import number, texts
from producer.submit import OnProgress, Submitted, Submitter
from producer.watch import JobSnapshot, follow
from producer.wording import counts_in_words
from worker.contract import tracing
from worker.contract.errors import SettingsError
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy, Outcome, OutcomeKind
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.settings import Settings, load
from worker.contract.storage.s3 import ObjectStore

_MAX_JOBS = 1_000_000
_LEAST_POLL_SECONDS = 0.01
"""Shortest pause of `wait`: less would only keep Redis busy."""

Source = str | Path | Sequence[str | Path] | SourceSpec
"""What `submit` takes: one place or several, or a full specification."""

_REDIS_RETRIES = 12
"""Retries of each call, which take about 17 s: a restart of Redis must not end a program that has waited for hours."""


class Client:
    """Client of one maskmill installation, that is, of its Redis and its S3.

    It is thread-safe. Create one per process, after any fork, and close it.
    """

    def __init__(
        self, settings: Settings | None = None, *, on_progress: OnProgress = lambda phase, count: None
    ) -> None:
        """Read the settings; the first call connects.

        Args:
            settings: addresses of Redis and S3; None reads them from the environment, as the command does.
            on_progress: called during a submission with its phase (`listed`, `uploaded`) and the count so far.

        Raises:
            SettingsError: a setting is missing or invalid.
        """
        self._settings = settings or load()
        self._store = ObjectStore(self._settings.s3)
        self._ledger = Ledger(self._settings.redis, retries=_REDIS_RETRIES, client_name="maskmill-client")
        self._celery = make_celery(self._settings, client_name="maskmill-client")
        self._on_progress = on_progress
        self._tracing = tracing.start("maskmill-producer")

    def submit(
        self,
        source: Source,
        dest: str,
        *,
        outputs: OutputOptions | None = None,
        policy: JobPolicy | None = None,
        job_key: str = "",
        keys: str | Iterable[str] | None = None,
        filters: Filters | None = None,
        background_file: str | Path | None = None,
    ) -> Submitted:
        """Submit images, or join the job that an earlier call submitted with the same job key.

        Pass a job key if the program may run again after a crash: the first run submits the job, and later runs get
        the same job, running or ended. Without a key each call submits a new job, whose workers skip outputs that are
        up to date.

        Args:
            source: s3:// prefix, object or glob; local folder, file or glob, which is uploaded first; several local
                ones; or a `SourceSpec`.
            dest: s3:// prefix for the outputs.
            outputs: what to write for each image; None writes masks in PNG.
            policy: how to run the job; None means normal priority, and outputs that are up to date are skipped.
            job_key: unique name of this piece of work, such as a date, an order number or the run of an orchestrator.
            keys: only these objects (one text is one key), relative to `source` or s3:// URLs below it.
            filters: which images of the source to submit.
            background_file: local picture to put behind composites; it is uploaded.

        Raises:
            SourceError: there is nothing to submit, or the source cannot be read.
            OutputCollision: two inputs would write the same output.
            SettingsError: source and destination overlap, or options contradict each other.
            ServiceError: S3 or Redis failed; the job, if there is one, is cancelled. With a job key, call again.
        """
        self._ledger.connection.check()
        request = _request(outputs, background_file)
        if policy is not None and not isinstance(policy, JobPolicy):
            raise SettingsError(f"policy takes JobPolicy(...), not {policy!r:.80}")
        with _spec(source, keys, filters) as spec:
            return self._submitter.submit(spec, dest, request, policy=policy, job_key=job_key)

    def plan(
        self,
        source: Source,
        dest: str,
        *,
        outputs: OutputOptions | None = None,
        keys: str | Iterable[str] | None = None,
        filters: Filters | None = None,
        background_file: str | Path | None = None,
        count_up_to_date: bool = False,
    ) -> Plan:
        """Return what `submit` would do (counts, bytes, collisions) without writing anything.

        Close the plan, or use it in a `with` statement. The arguments are those of `submit`; with `count_up_to_date`
        the destination is listed too, to count the images that workers would skip.

        Raises:
            SourceError: the source cannot be read.
            SettingsError: source and destination overlap.
            ServiceError: S3 failed.
        """
        request = _request(outputs, background_file)
        with _spec(source, keys, filters) as spec:
            return self._submitter.plan(spec, dest, request, count_up_to_date=count_up_to_date)

    def estimate(self, plan: Plan) -> Estimate:
        """Return the time and core-hours that a plan would take, from measured speed and the live workers."""
        return estimate_plan(plan, self._ledger)

    def find(self, job_key: str) -> JobView | None:
        """Return the job submitted with a key; None if there is none or its submission failed.

        Raises:
            ServiceError: Redis failed.
        """
        found = self._submitter.join(job_key)
        return found.view if found else None

    def status(self, job: str) -> JobView:
        """Return the state of a job; the cost does not depend on the size of the job.

        Raises:
            JobNotFound: Redis does not know the job.
            JobUnreadable: its record in Redis is damaged.
            ServiceError: Redis failed.
        """
        return self._ledger.view(job)

    def jobs(self, limit: int = 20) -> list[JobView]:
        """Return the newest jobs, newest first; those whose records cannot be read are left out.

        Raises:
            SettingsError: the limit is no whole number from 1 to 1,000,000.
            ServiceError: Redis failed.
        """
        most = int(number("limit", limit, least=1, most=_MAX_JOBS, whole=True))
        return self._ledger.jobs(most)

    def wait(
        self,
        job: str,
        *,
        timeout: float | None = None,
        poll_seconds: float = 1.0,
        on_progress: Callable[[JobSnapshot], None] = lambda snapshot: None,
    ) -> JobView:
        """Wait until a job ends and return it. Check its `status`, `failed` and `dead`: it may not have succeeded.

        Args:
            job: id of the job.
            timeout: longest time to wait, in seconds; None waits until the job ends.
            poll_seconds: seconds between two reads of the job's state.
            on_progress: called with each snapshot: the job, its rate in images per second, the time left, and why it
                makes no progress, if it makes none.

        Raises:
            SettingsError: the time-out is no number from 0, or the pause none from 0.01.
            TimeoutError: the time-out expired; the job continues, so `wait` can be called again.
            JobNotFound: Redis does not know the job.
            ServiceError: Redis has been unreachable for longer than a restart takes; the job continues.
        """
        if timeout is not None:
            number("timeout", timeout, least=0)
        number("poll_seconds", poll_seconds, least=_LEAST_POLL_SECONDS)
        why = partial(live.why_waiting, self._ledger)
        for snapshot in follow(self._ledger, job, interval=poll_seconds, timeout=timeout, why_waiting=why):
            on_progress(snapshot)
            if snapshot.view.ended:
                return snapshot.view
        view = snapshot.view
        waiting = f" ({snapshot.waiting})" if snapshot.waiting else ""
        raise TimeoutError(
            f"job {job} is still {view.status.value} after {timeout:g} s, with {counts_in_words(view)}{waiting}; it "
            "continues, so call wait() again"
        )

    def results(
        self, job: str, *, kinds: OutcomeKind | str | Iterable[OutcomeKind | str] = tuple(OutcomeKind)
    ) -> Iterator[Outcome]:
        """Yield the outcome of each image, in no particular order.

        A running job yields the outcomes so far. Memory does not grow with the job, except for one byte per image.

        Args:
            job: id of the job.
            kinds: outcomes of this kind or these kinds only: `ok`, `skipped`, `failed`, `dead`, `cancelled`.

        Raises:
            SettingsError: there is no such kind.
            JobNotFound: Redis does not know the job.
            SourceError: the job is still being listed.
            ContractError: the job's files in S3 were changed or replaced.
            ServiceError: S3 or Redis failed.
        """
        return read_outcomes(self._store, self._ledger, self._ledger.view(job), kinds=_kinds(kinds))

    def download(self, job: str, folder: str | Path, *, on_file: OnFile = lambda fetched: None) -> Downloaded:
        """Copy the outputs written so far to a local folder, keeping the tree, and return how many there are.

        Args:
            job: id of the job.
            folder: local folder; it is created.
            on_file: called for each output, in order, when its file is complete.

        Raises:
            JobNotFound: Redis does not know the job.
            SourceError: the job is still being listed, or the folder cannot be written. An output that alone cannot be
                copied raises nothing: it is counted in `failed`, and `on_file` gets its `problem`.
        """
        return download_all(self._store, self._ledger, self._ledger.view(job), Path(folder), on_file)

    def cancel(self, job: str, reason: str = "cancelled by a program") -> JobView:
        """Stop a job: images in flight are finished, no new image starts. A second call changes nothing.

        Raises:
            JobNotFound: Redis does not know the job.
            JobStateError: the job has ended and was not cancelled.
        """
        return self._ledger.cancel(job, reason)

    def pause(self, job: str) -> JobView:
        """Start no new image until `resume`; images in flight are finished.

        Raises:
            JobNotFound, JobStateError: as for `cancel`.
        """
        return self._ledger.pause(job)

    def resume(self, job: str) -> JobView:
        """Continue a paused job.

        Raises:
            JobNotFound, JobStateError: as for `cancel`.
        """
        return self._ledger.resume(job)

    def retry(self, job: str, *, failed: bool = True, cancelled: bool = True) -> JobView:
        """Run images of an ended job again; if there are none, return the job unchanged.

        Args:
            job: id of the job.
            failed: run images whose outcome is `failed` or `dead`.
            cancelled: run images that were not done because the job was cancelled or stopped.

        Raises:
            JobNotFound: Redis does not know the job.
            JobStateError: the job has not ended.
        """
        return retry(self._store, self._ledger, job, failed=failed, cancelled=cancelled) or self.status(job)

    def recover(self, job: str, dest: str) -> JobView:
        """Rebuild a job that Redis has lost from its files in S3 under the destination, and continue it.

        Raises:
            JobStateError: Redis knows the job.
            JobNotFound: the destination has no such job.
            ContractError: the job's files were changed or replaced.
        """
        return recover(self._store, self._ledger, S3Url.folder(dest), job)

    def recover_all(self, *dests: str, dry_run: bool = False) -> Iterator[FoundJob]:
        """Rebuild every job that had not ended when Redis lost it, from the job folders under the destinations.

        Args:
            *dests: destinations of jobs, or prefixes above them. All that lies under them is listed.
            dry_run: write nothing.

        Returns:
            Every job found, oldest first, with what became of it: iterate to the end.

        Raises:
            ServiceError: a destination cannot be listed, or Redis failed. Repeat it: recovered jobs are left alone.
        """
        places = [S3Url.folder(dest) for dest in texts("dests", dests)]
        return recover_all(self._store, self._ledger, places, dry_run=dry_run)

    def forget(self, job: str) -> None:
        """Remove a job from Redis that has ended, or whose record cannot be read. What it has in S3 stays.

        Raises:
            JobNotFound: Redis does not know the job.
            JobStateError: the job has not ended.
        """
        forget(self._ledger, job)

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
            self._store, self._ledger, self._celery, self._settings.jobs.chunk_images, self._on_progress, self._tracing
        )


def _request(outputs: OutputOptions | None, background_file: str | Path | None) -> OutputRequest:
    if outputs is not None and not isinstance(outputs, OutputOptions):
        raise SettingsError(f"outputs takes OutputOptions(...), not {outputs!r:.80}")
    return OutputRequest(outputs or OutputOptions(), None if background_file is None else Path(background_file))


def _kinds(given: OutcomeKind | str | Iterable[OutcomeKind | str]) -> list[OutcomeKind]:
    try:
        return [OutcomeKind(kind) for kind in texts("kinds", given)]
    except ValueError as error:
        known = ", ".join(kind.value for kind in OutcomeKind)
        raise SettingsError(f"kinds: {error}; known outcomes: {known}") from error


@contextlib.contextmanager
def _spec(source: Source, keys: str | Iterable[str] | None, filters: Filters | None) -> Iterator[SourceSpec]:
    """Yield the `SourceSpec` of a source; keys are written to a temporary key list, as a user would give them."""
    if isinstance(source, SourceSpec):
        if keys is not None or filters is not None:
            raise SettingsError("a SourceSpec already holds keys and filters: pass them there, or pass a plain source")
        yield source
        return
    options: dict[str, Any] = {} if filters is None else {"filters": filters}
    if keys is None:
        yield SourceSpec(source, **options)
        return
    with tempfile.NamedTemporaryFile("w", prefix="maskmill-keys-", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(key_lines(texts("keys", keys)))
        file.flush()
        yield SourceSpec(source, file.name, ListFormat.JSONL, **options)
