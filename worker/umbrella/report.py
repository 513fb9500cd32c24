"""The report page of a run: the outcomes of all its jobs on one page, in the destination."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from producer.outcomes import read_outcomes
from producer.report.render import render
from producer.report.survey import survey
from producer.report.thumbnails import PicturePair, load_pairs
from producer.tables import atomic_file
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.umbrella.pictures import Pictures

NAME = "maskmill-report.html"

_SAMPLES = 48
"""Pictures on the page, about 40 kB each."""
_REVIEW_SAMPLES = 4
"""Pictures that a batch may add when the page is full, if they need review."""
_SUMMED = ("total", "bytes", "chunks", "cursor", "ok", "skipped", "failed", "dead", "cancelled", "core_seconds")


class RunReport:
    """Collects the jobs of a run. Pictures are read when a job is added, since its copies are deleted afterwards."""

    def __init__(self, store: ObjectStore, ledger: Ledger, config: Settings, pictures: Pictures) -> None:
        """Start with no job."""
        self._store, self._ledger, self._config, self._pictures = store, ledger, config, pictures
        self._pairs: list[PicturePair] = []
        self.views: list[JobView] = []
        """The jobs so far."""

    def add(self, view: JobView) -> None:
        """Add a job that has ended, while its pictures and outputs exist."""
        self.views.append(view)
        room = _SAMPLES - len(self._pairs)
        outcomes = read_outcomes(self._store, self._ledger, view)
        chosen = survey(outcomes, samples=max(room, _REVIEW_SAMPLES), seed=view.job).samples
        if room <= 0:
            chosen = [outcome for outcome in chosen if outcome.quality and outcome.quality.needs_review]
        self._pairs += load_pairs(self._store, view, chosen, self._config.limits)

    def write(self) -> Path | None:
        """Write the page, by atomic rename, and return its path; None without a job.

        Raises:
            SourceError: it cannot be written.
        """
        if not self.views:
            return None
        outcomes = itertools.chain.from_iterable(read_outcomes(self._store, self._ledger, view) for view in self.views)
        view = merged(self.views)
        page = render(
            view,
            replace(survey(outcomes, samples=0, seed=view.job), samples=[pair.outcome for pair in self._pairs]),
            self._pairs,
            now=time.time(),
            jobs=self._config.jobs,
            places=(str(self._pictures.source), str(self._pictures.dest)),
        )
        path = self._pictures.dest / NAME
        with atomic_file(path) as file:
            file.write(page.encode())
        return path


def merged(views: Sequence[JobView]) -> JobView:
    """Return one view with the numbers of several jobs; it has the id and the options of the first."""
    first = views[0]
    starts = [view.started_at for view in views if view.started_at]
    ends = [view.completed_at for view in views if view.completed_at]
    codes, models = Counter[str](), Counter[str]()
    for view in views:
        codes.update(view.codes)
        models.update(view.models)
    return first.model_copy(
        update={name: sum(getattr(view, name) or 0 for view in views) for name in _SUMMED}
        | {"started_at": min(starts, default=None), "completed_at": max(ends, default=None)}
        | {"finished_at": max((view.finished_at or 0 for view in views), default=0) or None}
        | {"codes": dict(codes), "models": dict(models)}
    )
