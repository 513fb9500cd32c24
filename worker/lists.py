"""The lists of a job that has ended: every image in exactly one of them, then `manifest.json`, `_SUCCESS` last.

Each object appears whole or not at all; written again after an interruption, they come out the same.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from worker.contract import jsonlines, manifest, results, states
from worker.contract.job import JobView
from worker.contract.ledger import Ledger
from worker.contract.manifest import job_folder
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.objects import ObjectStore, S3Url

LIST_IMAGES = 10_000
"""Images in one `succeeded-*.jsonl.gz`."""

SUCCESS = "_SUCCESS"
"""Empty object that says: every image of the job has an outcome, and all lists are written."""

UNKNOWN = "unknown"
"""Code of a failure whose details were lost with Redis before they were in S3."""

_GOOD = (OutcomeKind.OK, OutcomeKind.SKIPPED)
_BAD = (OutcomeKind.FAILED, OutcomeKind.DEAD)
_WRITTEN = 255


class _Parts:
    """Numbered gzip files of so many lines, uploaded as they fill."""

    def __init__(self, store: ObjectStore, folder: S3Url, stem: str) -> None:
        self._store, self._folder, self._stem = store, folder, stem
        self._lines: list[str] = []
        self.names: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) == LIST_IMAGES:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            name = f"{self._stem}-{len(self.names):05d}.jsonl.gz"
            jsonlines.write(self._store, self._folder / name, self._lines)
            self.names.append(name)
            self._lines.clear()


def write_lists(store: ObjectStore, ledger: Ledger, view: JobView, price_per_core_hour: float | None) -> dict[str, Any]:
    """Write all lists of a job in state `closing`; returns what `manifest.json` says.

    Memory: a byte per image.

    Raises:
        ServiceError: S3 or Redis did not do their part; call it again.
        ContractError: the job's objects were changed by somebody else.
    """
    dest = S3Url.parse(view.options.dest)
    folder = job_folder(dest, view.job)
    codes: Counter[str] = Counter()
    good, cancelled = _Parts(store, folder, "succeeded"), _Parts(store, folder, "cancelled")
    with tempfile.TemporaryDirectory(prefix="maskmill-lists-") as scratch:
        failed = Path(scratch) / "failed.jsonl"
        with failed.open("w", encoding="utf-8") as bad:
            for outcome in _final(store, ledger, view, dest):
                _write(outcome, good, bad, cancelled)
                codes.update([outcome.code or UNKNOWN] if outcome.kind in _BAD else [])
        store.upload(failed, folder / failed.name)
    good.flush()
    cancelled.flush()
    _drop_leftovers(store, folder, {*good.names, *cancelled.names})
    facts = _facts(view, dict(codes), [*good.names, failed.name, *cancelled.names], price_per_core_hour)
    results.write_facts(store, dest, view.job, "manifest.json", facts)
    if view.ending == "finished":
        store.put(folder / SUCCESS, b"", content_type="application/octet-stream")
    else:
        store.delete(folder / SUCCESS)  # of an earlier epoch
    return facts


def _write(outcome: Outcome, good: _Parts, bad: IO[str], cancelled: _Parts) -> None:
    line = outcome.model_dump_json(exclude_defaults=True)
    if outcome.kind in _GOOD:
        good.add(line)
    elif outcome.kind in _BAD:
        bad.write(line + "\n")
    else:
        cancelled.add(line)


def _final(store: ObjectStore, ledger: Ledger, view: JobView, dest: S3Url) -> Iterator[Outcome]:
    """The one outcome that counts of every image: what the ledger says, with the details of the log."""
    left = bytearray(b"".join(ledger.pieces(view.job, view.total or 0)))
    for outcome in results.newest_first(store, dest, view.job):
        if outcome.index < len(left) and left[outcome.index] == states.NUMBERS[outcome.kind]:
            left[outcome.index] = _WRITTEN
            yield outcome
    if left.count(_WRITTEN) == len(left):
        return
    # Cancelled images have no line in the log; nor has one whose line was lost with Redis after its state was saved.
    for index, entry in enumerate(manifest.read(store, dest, view.job, view.total or 0)):
        if left[index] != _WRITTEN:
            kind = states.KINDS[left[index]] or OutcomeKind.CANCELLED
            yield Outcome(index=index, key=entry.key, kind=kind)


def _drop_leftovers(store: ObjectStore, folder: S3Url, written: set[str]) -> None:
    """Lists of an earlier epoch that had more parts."""
    for stem in ("succeeded-", "cancelled-"):
        for item in store.list(folder / stem):
            if stem + item.key not in written:
                store.delete(folder / (stem + item.key))


def _facts(view: JobView, codes: dict[str, int], lists: list[str], price_per_core_hour: float | None) -> dict[str, Any]:
    counts = {kind.value: int(getattr(view, kind.value)) for kind in OutcomeKind}
    done = max(1, view.ok)
    seconds = (view.completed_at or 0.0) - (view.started_at or view.submitted_at or 0.0)
    return {
        "schema_version": 1,
        "job": view.job,
        "epoch": view.epoch,
        "status": view.ending,
        "reason": view.reason,
        "source": view.options.source,
        "dest": view.options.dest,
        "options": view.options.model_dump(mode="json"),
        "options_digest": view.options.digest(),
        "policy": view.policy.model_dump(mode="json"),
        "models": view.models,
        "total": view.total,
        "bytes": view.bytes,
        "counts": counts,
        "failures_by_code": codes,
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
        "lists": lists,
    }
