"""One run of `maskmill cut`: pictures of a folder in, outputs in a folder, over the services of a session.

Pictures go in batches, each a job with a destination of its own:

    batch -> upload and submit -> outputs to the folder as they are done -> record what was made -> delete the copies

The next batch is uploaded while one is being worked on. So the services hold the pictures of two batches at most, and
after the run only the lists of its jobs. A run that was killed leaves a marker, and a later run deletes its copies.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from producer.backgrounds import FOLDER as BACKGROUNDS
from producer.backgrounds import OutputRequest
from producer.delivery import Delivery
from producer.sources.item import Item
from producer.sources.list_formats import ListFormat, key_lines
from producer.sources.lookup import in_order
from producer.sources.resolve import SourceSpec
from producer.sources.upload import FOLDER as UPLOADS
from producer.submit import Submitter, new_job_id
from worker.contract import local_services, output_names
from worker.contract.errors import JobStateError, ServiceError, StandaloneError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo, ObjectStore
from worker.processes.filelock import locked
from worker.umbrella.made import MadeRecord
from worker.umbrella.pictures import Pictures
from worker.umbrella.report import RunReport
from worker.umbrella.session import Session
from worker.umbrella.totals import Totals

_FIRST_BATCH, _BATCH = 32, 256
"""Most pictures of the first batch, which is small so that outputs come at once, and of the others."""
_BATCH_BYTES = 1024**3
_JOBS_AHEAD = 2
_POLL_SECONDS = 0.2
_STOP_SECONDS = 20.0
"""Longest wait for the images in flight of workers that another command started."""
_DELETIONS_AT_ONCE = 16
_RECLAIM_BYTES = 512 * 1024**2
"""Deleted copies after which their disk space is freed, which takes about a second."""
_RECLAIM_AT_END_BYTES = 32 * 1024**2
_ALL_RUNS = S3Url(local_services.BUCKET, "cut/")


@dataclass
class _Batch:
    items: dict[str, Item]
    view: JobView
    delivery: Delivery


class FolderRun:
    """A run over the services of a session. A context manager: it deletes its copies at the end."""

    def __init__(
        self,
        session: Session,
        pictures: Pictures,
        request: OutputRequest,
        made: MadeRecord,
        *,
        recipe: str,
        on_progress: Callable[[Totals], None],
    ) -> None:
        """Connect, and clean up after runs that were killed.

        Args:
            session: the services.
            pictures: source and destination.
            request: the outputs.
            made: gets a line for each picture that is done.
            recipe: of options and network, for that line.
            on_progress: called often, with the numbers so far.
        """
        self._session, self._pictures, self._request, self._made = session, pictures, request, made
        self._recipe, self._on_progress = recipe, on_progress
        self._active: list[_Batch] = []
        self._deleted = 0
        self.totals = Totals()
        self.failed: set[tuple[str, int | None, float | None]] = set()
        """Key, size and time of change of each picture that failed."""
        with contextlib.ExitStack() as on_end:
            config = session.config
            self._store = on_end.enter_context(ObjectStore(config.s3))
            self._ledger = on_end.enter_context(Ledger(config.redis, retries=6))
            celery = on_end.enter_context(contextlib.closing(make_celery(config, client_name="maskmill-cut")))
            self._submitter = Submitter(self._store, self._ledger, celery, config.jobs.chunk_images, self._on_upload)
            self._report = RunReport(self._store, self._ledger, config, pictures)
            runs = local_services.folder() / "runs"
            runs.mkdir(mode=0o700, exist_ok=True)
            self._sweep(runs)
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", pictures.dest.name)[:40]
            self._marker = runs / f"{name}-{new_job_id()}"
            on_end.enter_context(locked(self._marker))
            self._on_end = on_end.pop_all()
        self._batches = itertools.count(1)
        self._ticked = 0.0

    def process(self, items: Sequence[Item]) -> None:
        """Make the outputs of these pictures. Returns when all are done or have failed.

        Raises:
            StandaloneError: the services or their workers have ended.
            SourceError: a picture cannot be read, or an output cannot be written.
            ServiceError: a service failed.
        """
        self.totals.planned += len(items)
        for batch in _batches(items):
            while len(self._active) >= _JOBS_AHEAD:
                self._wait()
            self._submit(batch)
            self._tick()
        while self._active:
            self._wait()

    def interrupt(self) -> None:
        """Finish the images in flight, deliver them, and give up the rest."""
        self._cancel(self._marker.name, "interrupted")
        if self._session.stack is not None:
            self._session.stack.stop_workers()
        else:
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline and not all(self._view(batch).ended for batch in self._active):
                time.sleep(_POLL_SECONDS)
        for batch in self._active:
            self._deliver(batch, self._view(batch))

    def write_report(self) -> Path | None:
        """Write the report page into the destination and return its path; None if no job has ended."""
        return self._report.write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._on_end, contextlib.suppress(ServiceError):  # then a later run cleans up, by the marker
            self._cancel(self._marker.name, "its `maskmill cut` has ended")
            self._discard(self._marker.name)
            self._reclaim(_RECLAIM_AT_END_BYTES)
            self._marker.unlink()

    def _submit(self, batch: Sequence[Item]) -> None:
        dest = _ALL_RUNS / f"{self._marker.name}/{next(self._batches)}/"
        with tempfile.NamedTemporaryFile("w", prefix="maskmill-keys-", suffix=".jsonl", encoding="utf-8") as file:
            file.writelines(key_lines(item.key for item in batch))
            file.flush()
            root, follow_links = str(self._pictures.root), self._pictures.follow_links
            spec = SourceSpec((root,), file.name, ListFormat.JSONL, follow_links=follow_links)
            policy = JobPolicy(skip_existing=False, folder=str(self._pictures.dest))
            submitted = self._submitter.submit(spec, str(dest), self._request, policy=policy)
        delivery = Delivery(self._store, self._ledger, submitted.view, self._pictures.dest)
        self._active.append(_Batch({item.key: item for item in batch}, submitted.view, delivery))

    def _on_upload(self, phase: str, count: int) -> None:
        """Deliver outputs of the batches before while this one is uploaded."""
        if time.monotonic() - self._ticked >= _POLL_SECONDS:
            self._tick()

    def _wait(self) -> None:
        self._tick()
        if self._active:
            time.sleep(_POLL_SECONDS)

    def _tick(self) -> None:
        self._session.check()
        for batch in list(self._active):
            view = self._view(batch)
            self._deliver(batch, view)
            if view.ended:
                self._finish(batch, view)
        self._ticked = time.monotonic()
        self._on_progress(self.totals)

    def _view(self, batch: _Batch) -> JobView:
        view = self._ledger.view(batch.view.job)
        self.totals.done += view.done - batch.view.done
        batch.view = view
        return view

    def _deliver(self, batch: _Batch, view: JobView) -> None:
        for image in batch.delivery.collect(view):
            if any(file.gone for file in image.files):
                raise StandaloneError(
                    f"an output of {image.key} has vanished from the services: run the command again to go on"
                )
            item = batch.items[image.key]
            if image.problem:
                self.totals.failures.append({"key": image.key, "code": "not_written", "message": image.problem})
                self.failed.add((item.key, item.size, item.modified))
            else:
                self._made.add(item, self._recipe)
                self.totals.ok += 1
            self._on_progress(self.totals)

    def _finish(self, batch: _Batch, view: JobView) -> None:
        if view.failed or view.dead:
            copies = str(view.options.source)
            for failure in self._ledger.failures(view.job):
                message = failure["message"].replace(copies, f"{self._pictures.root}/")
                self.totals.failures.append(failure | {"message": message})
                item = batch.items[failure["key"]]
                self.failed.add((item.key, item.size, item.modified))
        self.totals.cancelled |= view.status is not JobStatus.FINISHED
        self._report.add(view)
        self._discard(view.options.dest.key.removeprefix(_ALL_RUNS.key))
        self._reclaim(_RECLAIM_BYTES)
        self._active.remove(batch)

    def _sweep(self, runs: Path) -> None:
        """Cancel the jobs of runs that were killed, and delete their copies."""
        for marker in sorted(runs.iterdir()):
            with contextlib.suppress(TimeoutError), locked(marker, limit_seconds=0):
                self._cancel(marker.name, "its `maskmill cut` was killed")
                self._discard(marker.name)
                marker.unlink()

    def _cancel(self, run: str, reason: str) -> None:
        """Cancel the jobs of a run that have not ended."""
        for job in itertools.chain.from_iterable(Backlog(self._ledger.connection).parts()):
            if job.view.options.dest.key.startswith(f"{_ALL_RUNS.key}{run}/"):
                with contextlib.suppress(JobStateError):
                    self._ledger.cancel(job.view.job, reason)

    def _discard(self, name: str) -> None:
        """Delete pictures and outputs of a run or a batch; the lists of its jobs stay, for `maskmill results`."""
        folder = (_ALL_RUNS / name).as_folder()
        inside = folder.key.removeprefix(_ALL_RUNS.key)
        copies = (found for found in self._store.list(folder) if not _is_list(inside + found.key))

        def delete(found: ObjectInfo) -> int:
            self._store.delete(folder / found.key)
            return found.size or 0

        self._deleted += sum(in_order(copies, delete, _DELETIONS_AT_ONCE))

    def _reclaim(self, least_bytes: int) -> None:
        """Free the disk space of deleted copies, if it is worth it and the services are ours."""
        if self._session.stack is not None and self._deleted >= least_bytes:
            self._session.stack.services.s3.reclaim()
            self._deleted = 0


def _is_list(key: str) -> bool:
    """Return whether `RUN/BATCH/...` is metadata of a job, not a copy of a picture or an output."""
    _, _, below = key.split("/", 2)
    return below.startswith(output_names.JOB_PREFIX) and not below.startswith((UPLOADS, BACKGROUNDS))


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the pictures in batches of a limited number and a limited size; each has at least one."""
    batch: list[Item] = []
    size, most = 0, _FIRST_BATCH
    for item in items:
        if batch and (len(batch) >= most or size + (item.size or 0) > _BATCH_BYTES):
            yield batch
            batch, size, most = [], 0, _BATCH
        batch.append(item)
        size += item.size or 0
    if batch:
        yield batch
