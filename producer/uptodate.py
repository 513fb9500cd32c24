"""How many images of a plan workers would find up to date, without asking about each.

The destination is listed once, which tells the images whose outputs are all there, and of those a sample is asked about
(one HEAD for each output): whether they were made of the same object, with the same options, by a network that a live
worker runs. Where no more than the sample are there, the count is exact. Workers ask about every image.

A listing is kept as 8 bytes a key; that a key is taken for another by its digest is as likely as 1e-12 for ten million.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from producer.sources.item import Item
from producer.sources.lookup import AT_ONCE, in_order
from producer.sources.upload import is_there
from worker.contract import output_names
from worker.contract.errors import ObjectMissing
from worker.contract.messages import JobOptions
from worker.contract.provenance import MODEL, OPTIONS, SOURCE_ETAG, made_alike
from worker.contract.storage.s3 import ObjectStore, S3Url

SAMPLE = 100
"""Images asked about: a share of one half is known to within 10 percentage points (two standard deviations)."""

_PARTS = 256


@dataclass(frozen=True)
class UpToDate:
    """What a plan says about it."""

    images: int | None
    """That workers would skip; None: not known."""

    basis: str
    """How that is known, or why it is not."""


NOT_ASKED = UpToDate(None, "not counted")
FORCED = UpToDate(None, "not counted: --force does all images")

Look = Callable[[JobOptions, S3Url | Path], "OutputCheck"]
"""Makes the check, once a source is open: given the options and the root of its keys."""


class OutputCheck:
    """Shown every image of a plan, then asked."""

    def __init__(
        self,
        store: ObjectStore,
        options: JobOptions,
        root: S3Url | Path,
        *,
        options_digest: str | None,
        models: Collection[str],
    ) -> None:
        """List the destination.

        Args:
            store: has it.
            options: of the job; `source` is where workers find the images.
            root: of the source; a folder's files may have changed since they were uploaded.
            options_digest: of the outputs wanted; None: no output can have been made with such options.
            models: digests of the networks that workers run; empty: unknown, so that any will do.
        """
        self._store, self._options, self._root, self._models = store, options, root, models
        self._digest = options_digest
        self._listed = _Keys(_outputs(store, S3Url.parse(options.dest)) if options_digest else iter(()))
        self._there = 0
        self._sample: list[Item] = []
        self._random = random.Random(0)

    def see(self, item: Item) -> None:
        """Note one image."""
        if not self._listed or not all(key in self._listed for key in self._outputs(item)):
            return
        self._there += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(item)
        elif (place := self._random.randrange(self._there)) < SAMPLE:  # reservoir sampling, algorithm R (Vitter 1985)
            self._sample[place] = item

    def result(self) -> UpToDate:
        """Ask about the sample.

        Raises:
            ServiceError: S3 did not do its part.
        """
        if not self._there:
            return UpToDate(0, "no image has all of its outputs under the destination")
        fresh = sum(in_order(iter(self._sample), self._is_fresh, AT_ONCE))
        model = "" if self._models else "; no worker is there to tell the model, any counts"
        if self._there <= SAMPLE:
            return UpToDate(fresh, f"{self._there:,} with outputs, all looked at{model}")
        images = round(self._there * fresh / SAMPLE)
        return UpToDate(images, f"estimated: {self._there:,} with outputs, {fresh} of {SAMPLE} looked at{model}")

    def _outputs(self, item: Item) -> Iterator[str]:
        return (self._options.output_key(item.key, kind) for kind in self._options.outputs)

    def _is_fresh(self, item: Item) -> bool:
        try:
            etag = self._source_etag(item)
            found = [self._store.head(S3Url.parse(self._options.dest) / key).metadata for key in self._outputs(item)]
        except (ObjectMissing, FileNotFoundError):
            return False
        return all(
            metadata.get(SOURCE_ETAG) == etag
            and made_alike(metadata, {OPTIONS: self._digest or ""})
            and (not self._models or metadata.get(MODEL) in self._models)
            for metadata in found
        )

    def _source_etag(self, item: Item) -> str:
        """Of the object that workers would read; empty if it would be another one than now."""
        place = S3Url.parse(self._options.source) / item.key
        if isinstance(self._root, Path) and not is_there(self._store, place, (self._root / item.key).stat()):
            return ""
        return item.etag or self._store.head(place).etag


class _Keys:
    """Digests of keys, sorted in parts."""

    def __init__(self, keys: Iterator[str]) -> None:
        parts = [array("Q") for _ in range(_PARTS)]
        for key in keys:
            digest = _digest(key)
            parts[digest % _PARTS].append(digest)
        self._parts = [array("Q", sorted(part)) for part in parts]
        self._any = any(parts)

    def __bool__(self) -> bool:
        return self._any

    def __contains__(self, key: str) -> bool:
        digest = _digest(key)
        part = self._parts[digest % _PARTS]
        place = bisect_left(part, digest)
        return place < len(part) and part[place] == digest


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def _outputs(store: ObjectStore, dest: S3Url) -> Iterator[str]:
    """Keys under a destination; what is about jobs, uploads among it, may be much and is jumped over."""
    for found in store.list(dest):
        if found.key.startswith(output_names.JOB_PREFIX):
            break
        yield found.key
    else:
        return
    for found in store.list(dest, after=output_names.BEHIND_JOBS):
        yield found.key
