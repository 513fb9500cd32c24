"""Copy the outputs of a running job to a local folder, image by image, as they are done.

    delivery = Delivery(store, ledger, job, folder)
    while not ended:
        for image in delivery.collect(): ...      only images that were done since the last call

`maskmill cut` and `submit` with a folder as DEST use it. An output appears under its name only when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from producer.download import AT_ONCE, Fetched, fetch
from producer.sources.lookup import in_order
from worker.contract import outcome_codec
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectStore

_PARTS_KEPT = 4
"""Parts of the manifest in memory, of 10,000 images each: images finish almost in the order of the manifest."""

_DONE = frozenset(outcome_codec.NUMBERS[kind] for kind in (OutcomeKind.OK, OutcomeKind.SKIPPED))


@dataclass(frozen=True)
class Delivered:
    """One image that was done, with its outputs."""

    key: str
    files: tuple[Fetched, ...]

    @property
    def problem(self) -> str:
        """Why an output cannot be in the folder; empty if all are there."""
        return next((file.problem for file in self.files if file.problem), "")


class Delivery:
    """Remembers which images of a job are delivered: one byte per image."""

    def __init__(self, store: ObjectStore, ledger: Ledger, view: JobView, folder: Path) -> None:
        """Start with no image delivered."""
        self._store, self._ledger, self._folder = store, ledger, folder
        self._job, self._options = view.job, view.options
        self._total = 0
        self._delivered = bytearray()
        self._part = lru_cache(_PARTS_KEPT)(self._read_part)
        self._seen = -1
        self.images = 0
        """Images delivered so far."""

    def collect(self, view: JobView) -> Iterator[Delivered]:
        """Deliver the images that were done since the last call, and yield each when its files are complete.

        An output that cannot be a file in the folder is no error: the image says so (`Delivered.problem`).

        Args:
            view: the job as it is now; if no image was done since the last call, nothing is read.

        Raises:
            SourceError: the disk of the folder is full or read-only.
            ServiceError: S3 or Redis failed.
        """
        if view.total is None or view.done == self._seen:
            return
        if not self._delivered:
            self._total, self._delivered = view.total, bytearray(view.total)
        for index, delivered in in_order(self._done_now(), self._deliver, AT_ONCE):
            self._delivered[index] = 1
            self.images += 1
            yield delivered
        self._seen = view.done

    def _done_now(self) -> Iterator[int]:
        first = 0
        for block in self._ledger.outcome_blocks(self._job, self._total):
            for index, state in enumerate(block, first):
                if state in _DONE and not self._delivered[index]:
                    yield index
            first += len(block)

    def _deliver(self, index: int) -> tuple[int, Delivered]:
        number, line = divmod(index, manifest.PART_IMAGES)
        key = self._part(number)[line].key
        outputs = (self._options.output_key(key, kind) for kind in self._options.outputs)
        files = tuple(fetch(self._store, self._options.dest, output, self._folder) for output in outputs)
        return index, Delivered(key, files)

    def _read_part(self, number: int) -> list[manifest.Entry]:
        return manifest.read_part(self._store, self._options.dest, self._job, number, self._total)
