"""Which items of a source are taken.

In this order, and each item that is left out is counted under the first reason that applies:

    own files of earlier jobs (not counted) -> suffix -> --include -> --exclude -> --min-size, --max-size ->
    --newer-than -> --sample -> --limit

So --exclude wins over --include, a sample is drawn from what passed all other filters, and a limit ends the listing.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from producer.sources.globs import matcher
from producer.sources.item import Item, Skip, has_image_suffix
from producer.sources.units import Sample
from worker.contract import output_names
from worker.contract.errors import SourceError

Skipped = Counter[Skip]


@dataclass(frozen=True)
class Filters:
    """What to take; the defaults take every name with an image suffix."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    newer_than: float | None = None
    """Unix seconds; what was modified at that moment or later is taken."""
    sample: Sample | None = None
    seed: int = 0
    limit: int | None = None
    any_suffix: bool = False

    @property
    def needs_size(self) -> bool:
        """Whether items must come with their size."""
        return self.min_size is not None or self.max_size is not None


def chosen(
    items: Iterable[Item],
    filters: Filters,
    skipped: Skipped,
    *,
    look_up: Callable[[Iterator[Item]], Iterator[Item]] = lambda items: items,
) -> Iterator[Item]:
    """The items that pass, in their order.

    Args:
        items: of a source.
        filters: what to take.
        skipped: counts what is left out, by reason.
        look_up: fills in what a list does not say, for the items whose names passed.

    Raises:
        SourceError: a size or time is asked about that the source does not know.
    """
    found = _by_facts(look_up(_by_name(items, filters, skipped)), filters, skipped)
    if filters.sample:
        found = _sampled(found, filters.sample, filters.seed, skipped)
    return itertools.islice(found, filters.limit)


def _by_name(items: Iterable[Item], filters: Filters, skipped: Skipped) -> Iterator[Item]:
    included = matcher(filters.include) if filters.include else None
    excluded = matcher(filters.exclude) if filters.exclude else None
    for item in items:
        key = item.key
        if key.startswith(output_names.JOB_PREFIX):
            continue  # reports and manifests of an earlier job are not what the user counts as files
        if not (filters.any_suffix or has_image_suffix(key)):
            skipped[Skip.NOT_AN_IMAGE] += 1
        elif included is not None and not included(key):
            skipped[Skip.NOT_INCLUDED] += 1
        elif excluded is not None and excluded(key):
            skipped[Skip.EXCLUDED] += 1
        else:
            yield item


def _by_facts(items: Iterator[Item], filters: Filters, skipped: Skipped) -> Iterator[Item]:
    low, high, since = filters.min_size, filters.max_size, filters.newer_than
    if not filters.needs_size and since is None:
        yield from items
        return
    for item in items:
        size, modified = item.size, item.modified
        if filters.needs_size and size is None:
            raise _unknown(item, "size", "--min-size and --max-size")
        if since is not None and modified is None:
            raise _unknown(item, "last_modified", "--newer-than")
        if low is not None and size is not None and size < low:
            skipped[Skip.TOO_SMALL] += 1
        elif high is not None and size is not None and size > high:
            skipped[Skip.TOO_LARGE] += 1
        elif since is not None and modified is not None and modified < since:
            skipped[Skip.TOO_OLD] += 1
        else:
            yield item


def _unknown(item: Item, column: str, flags: str) -> SourceError:
    return SourceError(
        f"the list does not say {column} of {item.key!r}: add --head, which asks S3 about each object, "
        f"or a column {column!r}, or leave out {flags}"
    )


def _sampled(items: Iterator[Item], sample: Sample, seed: int, skipped: Skipped) -> Iterator[Item]:
    """By a hash of seed and key: the same objects whatever the order, and a smaller sample lies within a larger one."""
    salt = str(seed).encode()

    def draw(item: Item) -> int:
        return int.from_bytes(hashlib.blake2b(item.key.encode(), digest_size=8, salt=salt[:16]).digest())

    if sample.share is not None:
        bound = sample.share * 2**64
        for item in items:
            if draw(item) < bound:
                yield item
            else:
                skipped[Skip.NOT_SAMPLED] += 1
        return
    lowest: list[tuple[int, int, Item]] = []  # a heap with the highest draw on top
    for index, item in enumerate(items):
        heapq.heappush(lowest, (-draw(item), index, item))
        if len(lowest) > (sample.count or 0):
            heapq.heappop(lowest)
            skipped[Skip.NOT_SAMPLED] += 1
    yield from (item for _, _, item in sorted(lowest, key=lambda entry: entry[1]))
