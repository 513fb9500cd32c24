"""Make a report: read the outcomes, load the pictures, render the page, upload it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from producer.outcomes import read_outcomes
from producer.report.render import render
from producer.report.survey import survey
from producer.report.thumbnails import load_pairs
from producer.submit import OnProgress
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome
from worker.contract.s3url import S3Url
from worker.contract.settings import Settings
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

_NAME = "report.html"
_OUTCOMES_PER_CALL = 1000

"""Called with the current phase and the number of items done in it."""


def make_report(
    store: ObjectStore, ledger: Ledger, view: JobView, config: Settings, *, samples: int, on_progress: OnProgress
) -> bytes:
    """Return the report of a job's current state as an HTML page in UTF-8.

    Args:
        store: S3, which holds the job's objects.
        ledger: read only for a job that has not ended.
        view: the job.
        config: limits for decoding pictures, and the price of a core-hour.
        samples: largest number of pictures.
        on_progress: called with the phase and the count so far.

    Raises:
        SourceError: the job is still being listed, so its images are not known yet.
        ContractError: the job's objects in S3 were changed or replaced.
    """
    found = survey(_counted(read_outcomes(store, ledger, view), on_progress), samples=samples, seed=view.job)
    pairs = []
    for pair in load_pairs(store, view, found.samples, config.limits):
        pairs.append(pair)
        on_progress("pictures", len(pairs))
    return render(view, found, pairs, now=time.time(), jobs=config.jobs).encode()


def upload_report(store: ObjectStore, view: JobView, page: bytes) -> S3Url:
    """Upload the page to the job's folder in S3 and return its URL."""
    url = job_folder(view.options.dest, view.job) / _NAME
    store.put(url, page, content_type="text/html; charset=utf-8")
    return url


def _counted(outcomes: Iterable[Outcome], on_progress: OnProgress) -> Iterator[Outcome]:
    for count, outcome in enumerate(outcomes, 1):
        if count % _OUTCOMES_PER_CALL == 0:
            on_progress("outcomes read", count)
        yield outcome
