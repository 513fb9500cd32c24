"""Read the keys of chunks from the manifest and publish their messages.

The producer publishes the first chunks of a job, the feeder all others.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from celery import Celery

from worker.contract import redis_keys
from worker.contract.job import JobView
from worker.contract.messages import MAX_CHUNK_IMAGES, ChunkMessage
from worker.contract.queue import celery_app
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectStore

CHUNK_SECONDS = 25.0
"""Seconds of work in one chunk: long compared with the cost of a message, short enough to repeat after a kill."""

DEFAULT_CHUNK_IMAGES = 16
"""Images per chunk until a worker has reported its speed."""

WINDOW_PER_WORKER = 2
"""Chunk messages that wait in the broker per worker process."""

_PARTS_KEPT = 8
"""Manifest parts in memory, least recently used dropped first."""


def chunk_images(total: int, workers: int, seconds_per_image: float | None) -> int:
    """Return the number of images per chunk of a job.

    Args:
        total: images in the job.
        workers: number of live worker processes.
        seconds_per_image: mean time that one process takes for an image; None if unknown.
    """
    by_time = math.floor(CHUNK_SECONDS / seconds_per_image) if seconds_per_image else DEFAULT_CHUNK_IMAGES
    # Two chunks per process: a small job reaches every process, and faster ones can take more.
    by_share = math.ceil(total / (2 * max(1, workers)))
    return max(1, min(by_time, by_share, MAX_CHUNK_IMAGES))


def window(workers: int) -> int:
    """Return how many chunk messages of all jobs should wait in the broker."""
    return WINDOW_PER_WORKER * max(1, workers)


class Dispatcher:
    """Publish chunks of any job. Not thread-safe."""

    def __init__(self, store: ObjectStore, celery: Celery) -> None:
        """Store the connections. Nothing is read or sent yet."""
        self._store, self._celery = store, celery
        self._parts: OrderedDict[tuple[str, int], list[str]] = OrderedDict()

    def send(self, view: JobView, chunks: Sequence[int], *, express: bool = False) -> None:
        """Publish chunks that the caller has taken from the ledger.

        Args:
            view: the job.
            chunks: the numbers of the chunks.
            express: publish to the queue that workers serve first.

        Raises:
            ServiceError: S3 or Redis failed. The reconciler republishes the chunks that were not published.
            ContractError: the manifest was changed or replaced.
        """
        messages = [self._message(view, chunk) for chunk in chunks]
        celery_app.publish(self._celery, messages, queue=redis_keys.EXPRESS_QUEUE if express else redis_keys.QUEUE)

    def _message(self, view: JobView, chunk: int) -> ChunkMessage:
        first = chunk * view.chunk_images
        last = min(first + view.chunk_images, view.total or 0)
        return ChunkMessage(
            job=view.job,
            epoch=view.epoch,
            chunk=chunk,
            start=first,
            keys=tuple(self._keys(view, first, last)),
            traceparent=view.traceparent,
        )

    def _keys(self, view: JobView, first: int, last: int) -> Iterator[str]:
        size = manifest.PART_IMAGES
        for part in range(first // size, (last - 1) // size + 1):
            start = part * size
            yield from itertools.islice(self._part(view, part), max(0, first - start), last - start)

    def _part(self, view: JobView, part: int) -> list[str]:
        at = (view.job, part)
        if at not in self._parts:
            entries = manifest.read_part(self._store, view.options.dest, view.job, part, view.total or 0)
            self._parts[at] = [entry.key for entry in entries]
            while len(self._parts) > _PARTS_KEPT:
                self._parts.popitem(last=False)
        self._parts.move_to_end(at)
        return self._parts[at]
