"""Write the lists of a job that ends: every image in exactly one list, then the summary, then `_SUCCESS` or `_DONE`.

Each object appears completely or not at all. Written again after an interruption, the objects are the same.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from worker.contract import outcome_codec
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import jsonlines, outcome_log
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore, ObjectWriter

LIST_IMAGES = 10_000
"""Images in one `succeeded-*.jsonl.gz`."""

UNKNOWN = "unknown"
"""Code of a failure whose details were lost in Redis before they reached S3."""

_LIST_BYTES = 8 * 1024 * 1024
"""Compressed size at which a list goes on in the next part; usual parts have 1 MB."""

_MAX_LEFTOVERS = 10_000

_MAX_CODES, _MAX_CODE = 200, 100
"""Different error codes that a summary counts, and their length."""

_GOOD = (OutcomeKind.OK, OutcomeKind.SKIPPED)
_BAD = (OutcomeKind.FAILED, OutcomeKind.DEAD)
_CANCELLED = outcome_codec.NUMBERS[OutcomeKind.CANCELLED]


class _Parts:
    """Numbered gzip objects of at most `LIST_IMAGES` lines, written as they fill."""

    def __init__(self, store: ObjectStore, folder: S3Url, stem: str) -> None:
        self._store, self._folder, self._stem = store, folder, stem
        self._writer = jsonlines.Writer()
        self.names: list[str] = []

    def add(self, line: str) -> None:
        self._writer.add(line)
        if self._writer.lines == LIST_IMAGES or self._writer.bytes >= _LIST_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._writer.lines:
            name = f"{self._stem}-{len(self.names):05d}.jsonl.gz"
            self._writer.write(self._store, self._folder / name)
            self.names.append(name)
            self._writer = jsonlines.Writer()


class _Lists:
    """The lists of one job, and the counts for its summary. Nothing is written to the disk of this machine."""

    def __init__(self, store: ObjectStore, folder: S3Url) -> None:
        self._store, self._folder = store, folder
        self._good, self._cancelled = (
            _Parts(store, folder, outcome_log.SUCCEEDED),
            _Parts(store, folder, outcome_log.CANCELLED),
        )
        self.codes: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.needs_review = 0

    def write(self, outcomes: Iterable[Outcome]) -> None:
        # Left in reverse order: the list of failures appears first.
        with self._open(outcome_log.REVIEW) as review, self._open(outcome_log.FAILED) as bad:
            for outcome in outcomes:
                line = outcome.model_dump_json(exclude_defaults=True)
                if outcome.kind in _BAD:
                    self._count(outcome.code or UNKNOWN)
                    bad.write(f"{line}\n".encode())
                else:
                    (self._good if outcome.kind in _GOOD else self._cancelled).add(line)
                if outcome.quality:
                    self.flags.update(outcome.quality.flags)
                    if outcome.quality.needs_review:
                        self.needs_review += 1
                        review.write(f"{line}\n".encode())
        self._good.flush()
        self._cancelled.flush()

    def _open(self, name: str) -> ObjectWriter:
        return self._store.open_writer(self._folder / name, content_type="application/x-ndjson")

    def _count(self, code: str) -> None:
        """Count a failure by its code; codes beyond those of maskmill, which a changed log may hold, are one."""
        self.codes[code if len(code) <= _MAX_CODE and len(self.codes) < _MAX_CODES else UNKNOWN] += 1

    @property
    def names(self) -> list[str]:
        """Names of the lists; every image is in exactly one of them."""
        return [*self._good.names, outcome_log.FAILED, *self._cancelled.names]

    @property
    def review(self) -> dict[str, Any]:
        """Fields of the job summary about masks that need review."""
        return {"flags": dict(self.flags), "needs_review": self.needs_review, "review_list": outcome_log.REVIEW}


def write_lists(
    store: ObjectStore, ledger: Ledger, view: JobView, price_per_core_hour: float | None, currency: str = ""
) -> dict[str, Any]:
    """Write all lists and the summary of a job in state `closing`, and return the summary (`manifest.json`).

    Uses one byte of memory per image.

    Raises:
        ServiceError: S3 or Redis failed; call it again.
        ContractError: the job's objects in S3 were changed.
    """
    dest = view.options.dest
    folder = job_folder(dest, view.job)
    lists = _Lists(store, folder)
    lists.write(_final(store, ledger, view, dest))
    _drop_leftovers(store, folder, set(lists.names))
    summary = _summary(
        view,
        codes=dict(lists.codes),
        review=lists.review,
        lists=lists.names,
        price_per_core_hour=price_per_core_hour,
        currency=currency,
    )
    outcome_log.write_json(store, dest, view.job, outcome_log.SUMMARY, summary)
    _mark(store, folder, view)
    return summary


def _mark(store: ObjectStore, folder: S3Url, view: JobView) -> None:
    """Write the marker of a finished job. Programs start on `_SUCCESS`, so it never stands for a job with failures."""
    failed = bool(view.failed or view.dead)
    marker = None if view.ending != "finished" else outcome_log.DONE if failed else outcome_log.SUCCESS
    for name in {outcome_log.SUCCESS, outcome_log.DONE} - {marker}:
        store.delete(folder / name)  # of an earlier epoch
    if marker is not None:
        store.put(folder / marker, b"", content_type="application/octet-stream")


def _final(store: ObjectStore, ledger: Ledger, view: JobView, dest: S3Url) -> Iterator[Outcome]:
    """Return the final outcome of every image; an image without an outcome is cancelled."""
    known = bytearray()  # of a job of the largest size, a second copy would not fit
    for block in ledger.outcome_blocks(view.job, view.total or 0):
        known += block.replace(b"\0", bytes([_CANCELLED]))
    yield from outcome_log.final(store, dest, view.job, known)


def _drop_leftovers(store: ObjectStore, folder: S3Url, written: set[str]) -> None:
    """Delete lists of an earlier epoch that had more parts; not more than any job has."""
    for stem in (f"{outcome_log.SUCCEEDED}-", f"{outcome_log.CANCELLED}-"):
        for item in itertools.islice(store.list(folder / stem), len(written) + _MAX_LEFTOVERS):
            if stem + item.key not in written:
                store.delete(folder / (stem + item.key))


def _summary(
    view: JobView,
    *,
    codes: dict[str, int],
    review: dict[str, object],
    lists: list[str],
    price_per_core_hour: float | None,
    currency: str,
) -> dict[str, Any]:
    counts = {kind.value: int(getattr(view, kind.value)) for kind in OutcomeKind}
    done = max(1, view.ok)
    seconds = (view.completed_at or 0.0) - (view.started_at or view.submitted_at or 0.0)
    return {
        "schema_version": 1,
        "job": view.job,
        "epoch": view.epoch,
        "status": view.ending,
        "reason": view.reason,
        "source": str(view.options.source),
        "dest": str(view.options.dest),
        "options": view.options.model_dump(mode="json"),
        "options_digest": view.options.digest(),
        "policy": view.policy.model_dump(mode="json"),
        "models": view.models,
        "total": view.total,
        "bytes": view.bytes,
        "counts": counts,
        "failures_by_code": codes,
        **review,
        "created_at": view.created_at,
        "submitted_at": view.submitted_at,
        "started_at": view.started_at,
        "completed_at": view.completed_at,
        "seconds": round(seconds, 3),
        "images_per_second": round(view.done / seconds, 3) if seconds > 0 else None,
        "core_seconds": round(view.core_seconds, 3),
        "core_seconds_per_image": round(view.core_seconds / done, 3),
        "cost_per_1000_images": (
            None
            if price_per_core_hour is None
            else round(view.core_seconds / done * 1000 / 3600 * price_per_core_hour, 6)
        ),
        "cost": None if price_per_core_hour is None else round(view.core_seconds / 3600 * price_per_core_hour, 6),
        "currency": currency,
        "lists": lists,
    }
