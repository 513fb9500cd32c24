"""A report from start to end: survey, pictures, page, S3."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from producer.outcomes import outcomes
from producer.report.render import render
from producer.report.survey import survey
from producer.report.thumbnails import shown
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome
from worker.contract.s3url import S3Url
from worker.contract.settings import Settings
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

NAME = "report.html"

Tell = Callable[[str, int], None]
"""Told what goes on and how far it is."""


def make_report(
    store: ObjectStore, ledger: Ledger, view: JobView, config: Settings, *, samples: int, tell: Tell
) -> bytes:
    """The page about a job as it is now, in UTF-8.

    Args:
        store: where its objects are.
        ledger: asked only about a job that has not ended.
        view: the job.
        config: limits of pictures, and the price of a core-hour.
        samples: pictures at most.
        tell: see `Tell`.

    Raises:
        SourceError: the job has no list of images yet.
        ContractError: its objects were changed by somebody else.
    """
    found = survey(_told(outcomes(store, ledger, view), tell), samples=samples, seed=view.job)
    pictures = []
    for picture in shown(store, view, found.samples, config.limits):
        pictures.append(picture)
        tell("pictures", len(pictures))
    price = config.jobs.price_per_core_hour
    return render(view, found, pictures, now=time.time(), price_per_core_hour=price).encode()


def place(view: JobView) -> S3Url:
    """Where the report of a job lies."""
    return job_folder(view.options.dest, view.job) / NAME


def upload(store: ObjectStore, view: JobView, page: bytes) -> S3Url:
    """Put the page into the job's folder."""
    where = place(view)
    store.put(where, page, content_type="text/html; charset=utf-8")
    return where


def _told(found: Iterable[Outcome], tell: Tell) -> Iterator[Outcome]:
    for count, outcome in enumerate(found, 1):
        if count % 1000 == 0:
            tell("outcomes read", count)
        yield outcome
