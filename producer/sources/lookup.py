"""Size, ETag and age of objects that a list names without them: one HEAD each, many at once, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from producer.sources.filters import Skipped
from producer.sources.item import Item, Skip
from worker.contract.errors import ObjectMissing
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

AT_ONCE = 16

T = TypeVar("T")


def in_order(items: Iterator[Item], work: Callable[[Item], T], at_once: int) -> Iterator[T]:
    """Do something for each item, some at once; results in the order of the items."""
    with ThreadPoolExecutor(at_once) as threads:
        under_way: deque[Future[T]] = deque()
        try:
            for item in items:
                under_way.append(threads.submit(work, item))
                if len(under_way) > 2 * at_once:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def look_up(store: ObjectStore, root: S3Url, items: Iterator[Item], skipped: Skipped) -> Iterator[Item]:
    """Fill in what is not known; what is not there is left out and counted."""

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
