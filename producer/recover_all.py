"""Find the jobs that Redis has lost in their folders in S3, and put those back that had not ended.

    scan   list everything under the destinations; a job is a folder `_maskmill/JOB/` with a `job.json`
    read   several jobs at a time: request, outcomes, last end
    write  one job after the other, the oldest first: jobs that write to the same destination keep their order

A job that has ended needs no record: it is left alone. What is wrong with a folder concerns its job alone.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from producer.recover import RebuiltJob, read_job, read_retry, read_summary, refuse_known, restore
from producer.retry import RETRY
from worker.contract import output_names
from worker.contract.errors import BrokerUnavailable, JobStateError, MaskmillError
from worker.contract.job import ENDED, JobStatus, is_job_id
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectStore

THREADS = 8
"""Requests to S3 at a time. Memory: so many jobs are read ahead, with one byte per image each."""

_JOB_OBJECT = re.compile(rf"((?:.*?/)?){output_names.JOB_PREFIX}([^/]+)/(.+)", re.DOTALL)
"""Destination, job and name of an object of a job."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Finding(StrEnum):
    """What `recover_all` found in a job's folder, and did."""

    RECOVERED = "recovered"
    """It had not ended: it is in Redis again. In a dry run: it would be."""

    KNOWN = "in redis"
    """Redis has it: nothing to do."""

    ENDED = "ended"
    """It is complete in S3, and left alone."""

    NOT_SUBMITTED = "not submitted"
    """Its producer was still listing its images. Submit it again."""

    UNREADABLE = "unreadable"
    """Its files were changed, are a copy, or S3 does not give them out. `reason` says which."""


@dataclass(frozen=True)
class FoundJob:
    """One job folder, and what became of it."""

    job: str
    dest: S3Url
    finding: Finding
    total: int = 0
    """Images of a job that was recovered."""

    done: int = 0
    """Images of these with an outcome."""

    reason: str = ""
    """Why it cannot be recovered; empty otherwise."""


@dataclass
class _Folder:
    """The names in a job's folder that say how far the job came."""

    dest: S3Url
    job: str
    listed: bool = False
    """It has a part of a manifest. Other folders beside those of jobs hold uploads and backgrounds."""

    submitted: bool = False
    marked: bool = False
    """It has a marker of the end, which a retry deletes."""

    summary: bool = False
    retry: bool = False
    last_epoch: int = field(default=-1)

    @property
    def is_job(self) -> bool:
        """Whether the folder is that of a job."""
        return self.submitted or self.listed

    def add(self, name: str) -> None:
        """Take note of an object in the folder."""
        self.listed |= name.startswith(manifest.PARTS)
        self.submitted |= name == outcome_log.REQUEST
        self.marked |= name in (outcome_log.SUCCESS, outcome_log.DONE)
        self.summary |= name == outcome_log.SUMMARY
        self.retry |= name == RETRY
        part = name.removeprefix(outcome_log.RESULTS)
        if part != name and outcome_log.is_part_name(part):
            self.last_epoch = max(self.last_epoch, outcome_log.epoch_of(part))


def recover_all(
    store: ObjectStore, ledger: Ledger, places: Sequence[S3Url], *, dry_run: bool = False
) -> Iterator[FoundJob]:
    """Yield every job whose folder lies under one of the places, oldest first; put those back that had not ended.

    Args:
        store: holds the job folders.
        ledger: the Redis that has lost jobs. Jobs that it has are left alone.
        places: destinations of jobs, or prefixes above them.
        dry_run: write nothing.

    Raises:
        ServiceError: a place cannot be listed, or Redis failed. Call it again: what was recovered is in Redis.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="recover") as pool:
        folders = _scan(store, pool, places)
        for found in _ahead(pool, lambda folder: _read(store, ledger, folder), folders):
            yield _written(ledger, found, dry_run=dry_run) if isinstance(found, RebuiltJob) else found


def _scan(store: ObjectStore, pool: ThreadPoolExecutor, places: Sequence[S3Url]) -> list[_Folder]:
    """Return the job folders under the places, oldest first: ids of jobs begin with the time of submission."""
    roots = [root for place in _outermost(places) for root in _split(store, place)]
    found = list(itertools.chain.from_iterable(_ahead(pool, lambda root: list(_folders(store, root)), roots)))
    return sorted(found, key=lambda folder: (folder.job, folder.dest.bucket, folder.dest.key))


def _outermost(places: Sequence[S3Url]) -> list[S3Url]:
    """Return the places without those that lie in another one, so that no job is found twice."""
    kept: list[S3Url] = []
    for place in sorted(set(places), key=lambda place: (place.bucket, place.key)):
        if not kept or kept[-1].bucket != place.bucket or not place.key.startswith(kept[-1].key):
            kept.append(place)
    return kept


def _split(store: ObjectStore, place: S3Url) -> list[S3Url]:
    """Return the folders in a place, to be listed at the same time; each is listed with all that lies in it."""
    inner = list(store.folders(place))
    return _split(store, inner[0]) if len(inner) == 1 and not _is_job_metadata(inner[0]) else inner


def _is_job_metadata(folder: S3Url) -> bool:
    return f"/{folder.key}".endswith(f"/{output_names.JOB_PREFIX}")


def _folders(store: ObjectStore, root: S3Url) -> Iterator[_Folder]:
    """Yield the job folders under a folder. Objects of one folder follow each other in a listing."""
    current: _Folder | None = None
    for item in store.list(root):
        match = _JOB_OBJECT.fullmatch(root.key + item.key)
        if match is None or not is_job_id(match[2]):
            continue
        dest = S3Url(root.bucket, match[1])
        if current is None or (current.dest, current.job) != (dest, match[2]):
            if current is not None and current.is_job:
                yield current
            current = _Folder(dest, match[2])
        current.add(match[3])
    if current is not None and current.is_job:
        yield current


def _read(store: ObjectStore, ledger: Ledger, folder: _Folder) -> RebuiltJob | FoundJob:
    dest, job = folder.dest, folder.job
    if not folder.submitted:
        return FoundJob(job, dest, Finding.NOT_SUBMITTED, reason="its images were still being listed")
    try:
        if folder.marked or _ended(store, folder):
            return FoundJob(job, dest, Finding.ENDED)
        refuse_known(ledger, job)
        return read_job(store, dest, job, marked=folder.marked)
    except JobStateError:
        return FoundJob(job, dest, Finding.KNOWN)
    except BrokerUnavailable:
        raise
    except MaskmillError as error:
        return FoundJob(job, dest, Finding.UNREADABLE, reason=str(error))


def _ended(store: ObjectStore, folder: _Folder) -> bool:
    """Return whether the job without a marker has ended, and no later retry is under way."""
    if not folder.summary:
        return False
    summary = read_summary(store, folder.dest, folder.job)
    retry = read_retry(store, folder.dest, folder.job) if folder.retry else None
    newest = max(folder.last_epoch, retry.epoch if retry else -1)
    # Without its marker, which is written last, a finished job was just ending.
    return summary.status in ENDED - {JobStatus.FINISHED} and summary.epoch >= newest


def _written(ledger: Ledger, found: RebuiltJob, *, dry_run: bool) -> FoundJob:
    if not dry_run:
        try:
            restore(ledger, found)
        except JobStateError:
            return FoundJob(found.job, found.dest, Finding.KNOWN)
    return FoundJob(found.job, found.dest, Finding.RECOVERED, total=found.total, done=found.done)


def _ahead(pool: ThreadPoolExecutor, call: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Yield the results in order, with at most `THREADS` calls ahead of the one that is used."""
    waiting: deque[Future[_R]] = deque()
    try:
        for item in items:
            if len(waiting) == THREADS:
                yield waiting.popleft().result()
            waiting.append(pool.submit(call, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
