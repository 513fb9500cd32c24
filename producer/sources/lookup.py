"""Look up size, ETag and age of objects whose list does not give them: one HEAD each, many at once, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from producer.sources.item import Item, Skip, Skipped
from worker.contract.errors import ObjectMissing
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

AT_ONCE = 16
"""HEAD requests in flight."""

S = TypeVar("S")
T = TypeVar("T")


def in_order(items: Iterable[S], work: Callable[[S], T], at_once: int) -> Iterator[T]:
    """Apply `work` to each item in `at_once` threads; yield the results in the order of the items.

    At most `2 * at_once + 1` items are in flight or wait to be yielded. If `work` fails, its error is raised in place
    of that result.
    """
    with ThreadPoolExecutor(at_once) as threads:
        in_flight: deque[Future[T]] = deque()
        try:
            for item in items:
                in_flight.append(threads.submit(work, item))
                if len(in_flight) > 2 * at_once:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        finally:
            for future in in_flight:
                future.cancel()


def look_up(store: ObjectStore, root: S3Url, items: Iterator[Item], skipped: Skipped) -> Iterator[Item]:
    """Complete the facts of each item; objects that do not exist are left out and counted."""

    def one(item: Item) -> Item | None:
        if item.size is not None and item.etag and item.modified is not None:
            return item
        try:
            found = store.head(root / item.key)
        except ObjectMissing:
            return None
        return Item(item.key, found.size, found.etag, found.modified)

    for item in in_order(items, one, AT_ONCE):
        if item is None:
            skipped[Skip.MISSING] += 1
        else:
            yield item
