"""Choose which items of a source become images of the job.

The filters apply in this order. An item that is left out is counted under the first filter that refuses it:

    files of earlier jobs (not counted) -> markers of folders, `._` files -> suffix -> --include -> --exclude ->
    --min-size, --max-size -> --newer-than -> --sample -> --limit

So --exclude wins over --include, a sample is drawn from the items that passed all other filters, and a limit ends the
listing.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from producer.sources.globs import matcher
from producer.sources.item import Item, Skip, Skipped, has_image_suffix, is_marker
from producer.sources.units import SampleSize, parse_sample, parse_size, parse_time, texts
from worker.contract import output_names
from worker.contract.errors import SettingsError, SourceError


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which items to take; the defaults take every name with an image suffix.

    Texts are read as the options of `producer submit` are: `Filters(include="*.jpg", min_size="10k", newer_than="7d",
    sample="1%")`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int | None = None
    """Bytes."""
    max_size: int | None = None
    """Bytes."""
    newer_than: float | None = None
    """Unix seconds; items modified at that moment or later are taken."""
    sample: SampleSize | None = None
    seed: int = 0
    limit: int | None = None
    any_suffix: bool = False

    if TYPE_CHECKING:  # `__post_init__` accepts more than the types of the fields

        def __init__(
            self,
            *,
            include: str | Iterable[str] = ...,
            exclude: str | Iterable[str] = ...,
            min_size: int | str | None = ...,
            max_size: int | str | None = ...,
            newer_than: float | str | datetime | None = ...,
            sample: SampleSize | int | str | None = ...,
            seed: int = ...,
            limit: int | None = ...,
            any_suffix: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Read the values as given.

        Raises:
            SettingsError: a value cannot be read; the message names the field.
        """
        for name in ("include", "exclude"):
            self._set(name, texts(name, getattr(self, name)))
        for name in ("min_size", "max_size"):
            self._read(name, getattr(self, name), int, parse_size, "a number of bytes, or a text such as 10k")
        moment: Any = self.newer_than
        moment = moment.isoformat() if isinstance(moment, datetime) else moment
        self._read("newer_than", moment, float, parse_time, "Unix seconds, a date, or an age such as 7d")
        drawn: Any = str(self.sample) if _is_number(self.sample, int) else self.sample
        self._read("sample", drawn, SampleSize, parse_sample, "a number of images, or a share such as 1%")
        if isinstance(self.sample, SampleSize):
            self.sample.check()
        if not _is_number(self.seed, int):
            raise SettingsError(f"seed takes a whole number, not {self.seed!r:.80}")
        if self.limit is not None and not (_is_number(self.limit, int) and self.limit > 0):
            raise SettingsError(f"limit takes a number of images from 1, not {self.limit!r:.80}")

    def _read(self, name: str, value: Any, kind: type, parse: Callable[[str], object], expected: str) -> None:
        """Set a field to a value, which is parsed if it is a text."""
        if isinstance(value, str):
            value = parse(value)
        elif value is not None and not (_is_number(value, kind) and _is_in_range(name, value)):
            raise SettingsError(f"{name} takes {expected}, not {value!r:.80}")
        self._set(name, value)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def needs_size(self) -> bool:
        """Whether every item must have a size."""
        return self.min_size is not None or self.max_size is not None


def _is_in_range(name: str, value: Any) -> bool:
    """Return whether a number can be the value of a field: sizes are not negative, times are finite."""
    if name == "newer_than":
        return isinstance(value, int) or math.isfinite(value)
    return not isinstance(value, int) or value >= 0


def _is_number(value: object, kind: type) -> bool:
    """Return whether a value is an `int`, or for `float` an `int` or a `float`; a bool is no number."""
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def choose(
    items: Iterable[Item],
    filters: Filters,
    skipped: Skipped,
    *,
    look_up: Callable[[Iterator[Item]], Iterator[Item]] = lambda items: items,
) -> Iterator[Item]:
    """Yield the items that pass, in their order.

    Args:
        items: of a source.
        filters: which items to take.
        skipped: counts the items left out, by reason.
        look_up: fills in the facts that a list does not give, for items whose names passed.

    Raises:
        SourceError: a filter needs a size or time that the source does not give.
    """
    found = _by_facts(look_up(_by_name(items, filters, skipped)), filters, skipped)
    if filters.sample:
        found = _sample(found, filters.sample, filters.seed, skipped)
    return itertools.islice(found, filters.limit and min(filters.limit, sys.maxsize))


def only_matching(items: Iterable[Item], pattern: str, skipped: Skipped) -> Iterator[Item]:
    """Yield the items whose whole key matches a glob; the others are counted as not included."""
    matches, nearly = matcher([f"/{pattern}"]), matcher([f"/{pattern}"], ignore_case=True)
    for item in items:
        if matches(item.key):
            yield item
        else:
            skipped[Skip.CASE_DIFFERS if nearly(item.key) else Skip.NOT_INCLUDED] += 1


def _by_name(items: Iterable[Item], filters: Filters, skipped: Skipped) -> Iterator[Item]:
    included = matcher(filters.include) if filters.include else None
    nearly = matcher(filters.include, ignore_case=True)
    excluded = matcher(filters.exclude) if filters.exclude else None
    for item in items:
        key = item.key
        if key.startswith(output_names.JOB_PREFIX):
            continue  # users do not count reports and manifests of earlier jobs among their files
        if is_marker(item):
            skipped[Skip.MARKER] += 1
        elif not (filters.any_suffix or has_image_suffix(key)):
            skipped[Skip.NOT_AN_IMAGE] += 1
        elif included is not None and not included(key):
            skipped[Skip.CASE_DIFFERS if nearly(key) else Skip.NOT_INCLUDED] += 1
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
        f"the list does not give the {column} of {item.key!r}: add --head, which asks S3 about each object, "
        f"or a column {column!r}, or leave out {flags}"
    )


def _sample(items: Iterator[Item], sample: SampleSize, seed: int, skipped: Skipped) -> Iterator[Item]:
    """Draw by a hash of seed and key: the sample does not depend on the order, and a larger one contains a smaller."""
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
