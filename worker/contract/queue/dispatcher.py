"""Read the keys of chunks from the manifest and publish their messages.

The producer publishes the first chunks of a job, the feeder all others.
"""

from __future__ import annotations

import math
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from celery import Celery

from worker.contract import redis_keys
from worker.contract.errors import BrokerUnavailable, ContractError
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

_PUBLISH_PAUSE_SECONDS = 0.5
"""Pause before publishing is repeated."""

_PARTS_KEPT = 8
"""Manifest parts in memory, least recently used dropped first."""

_KEYS_KEPT_BYTES = 32 * 1024 * 1024
"""Most memory for the keys of these parts. The keys of a usual part have 1 MB, the longest possible ones 40 MB."""


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

    def __init__(self, store: ObjectStore, celery: Celery, *, patience_seconds: float = 0.0) -> None:
        """Store the connections. Nothing is read or sent yet.

        Args:
            store: holds the manifests.
            celery: the queue.
            patience_seconds: time for which publishing is repeated while the queue cannot be reached.
        """
        self._store, self._celery, self._patience = store, celery, patience_seconds
        self._parts: OrderedDict[tuple[str, int], _Part] = OrderedDict()

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
        if outside := [chunk for chunk in chunks if not 0 <= chunk < view.chunks]:
            raise ContractError(f"job {view.job} has no chunk {outside[0]}: its keys in Redis were changed")
        messages = [self._message(view, chunk) for chunk in chunks]
        queue, end = redis_keys.EXPRESS_QUEUE if express else redis_keys.QUEUE, time.monotonic() + self._patience
        while True:
            try:
                celery_app.publish(self._celery, messages, queue=queue)
            except BrokerUnavailable:  # messages that were delivered all the same are known by their ids
                if time.monotonic() >= end:
                    raise
                time.sleep(_PUBLISH_PAUSE_SECONDS)
            else:
                return

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
            yield from self._part_keys(view, part, max(0, first - start), last - start)

    def _part_keys(self, view: JobView, part: int, first: int, last: int) -> list[str]:
        """Return the keys of some entries of a part of the manifest, and keep all keys of the part if there is room."""
        at = (view.job, part)
        if at in self._parts:
            self._parts.move_to_end(at)
            return self._parts[at].keys[first:last]
        found, kept, size = [], [], 0
        entries = manifest.iterate_part(self._store, view.options.dest, view.job, part, view.total or 0)
        for number, entry in enumerate(entries):
            if first <= number < last:
                found.append(entry.key)
            size += sys.getsizeof(entry.key)
            if size <= _KEYS_KEPT_BYTES:
                kept.append(entry.key)
            else:
                kept.clear()
        if kept:
            self._parts[at] = _Part(kept, size)
            self._make_room()
        return found

    def _make_room(self) -> None:
        while len(self._parts) > _PARTS_KEPT or sum(part.bytes for part in self._parts.values()) > _KEYS_KEPT_BYTES:
            self._parts.popitem(last=False)


class _Part(NamedTuple):
    """The keys of one part of a manifest."""

    keys: list[str]
    bytes: int
    """Memory of the keys."""
