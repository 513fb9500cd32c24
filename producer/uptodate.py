"""Count the images of a plan that workers would find up to date, without a request for each.

One listing of the destination shows which images have all of their outputs. Of those, a sample is checked with one HEAD
for each output: was it made from the same object, with the same options, by a model that a live worker runs? If no more
images than the sample have outputs, the count is exact. Workers themselves check every image.

A listing takes 8 bytes of memory per key. Among ten million keys, the probability that a given key is taken for another
one, because their digests agree, is 1e-12.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from producer.sources.item import Item
from producer.sources.lookup import AT_ONCE, in_order
from producer.sources.upload import is_current_copy
from worker.contract import output_names
from worker.contract.errors import ObjectMissing
from worker.contract.messages import JobOptions
from worker.contract.provenance import MODEL, OPTIONS, same_model_and_options, same_source, source_facts
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

SAMPLE = 100
"""Images checked: a share of one half is known to within 10 percentage points (two standard deviations)."""

_PARTS = 256


@dataclass(frozen=True)
class UpToDate:
    """Number of up-to-date images in a plan."""

    images: int | None
    """Images that workers would skip; None: unknown."""

    basis: str
    """How the number is known, or why it is not."""


NOT_COUNTED = UpToDate(None, "not counted")
FORCED = UpToDate(None, "not counted: --force processes all images")


class UpToDateCheck:
    """Takes every image of a plan, then estimates how many are up to date."""

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
            store: holds sources and outputs.
            options: of the job; `source` is the prefix where workers find the images.
            root: of the source; the files of a local folder may have changed since they were uploaded.
            options_digest: of the requested outputs; None: no output can have been made with such options.
            models: digests of the models that workers run; empty: unknown, so any model counts.
        """
        self._store, self._options, self._root, self._models = store, options, root, models
        self._digest = options_digest
        self._listed = _KeySet(_output_keys(store, options.dest) if options_digest else iter(()))
        self._with_outputs = 0
        self._sample: list[Item] = []
        self._random = random.Random(0)

    def add(self, item: Item) -> None:
        """Take one image."""
        if not self._listed or not all(key in self._listed for key in self._outputs(item)):
            return
        self._with_outputs += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(item)
        elif (place := self._random.randrange(self._with_outputs)) < SAMPLE:  # reservoir sampling (Vitter 1985, R)
            self._sample[place] = item

    def result(self) -> UpToDate:
        """Check the sample and return the count.

        Raises:
            ServiceError: S3 failed.
        """
        count = self._with_outputs
        if not count:
            return UpToDate(0, "no image has all of its outputs under the destination")
        current = sum(in_order(self._sample, self._is_current, AT_ONCE))
        model = "" if self._models else "; no worker is live, so any model counts"
        if count <= SAMPLE:
            return UpToDate(current, f"{count:,} with outputs, all checked{model}")
        return UpToDate(
            round(count * current / SAMPLE),
            f"estimated: {count:,} with outputs, {current} of {SAMPLE} checked are up to date{model}",
        )

    def _outputs(self, item: Item) -> Iterator[str]:
        return (self._options.output_key(item.key, kind) for kind in self._options.outputs)

    def _is_current(self, item: Item) -> bool:
        place = self._options.source / item.key
        try:
            facts = self._source_facts(item)
            found = [self._store.head(self._options.dest / key).metadata for key in self._outputs(item)]
            return all(
                same_source(metadata, facts, lambda: self._store.content_etag(place))
                and same_model_and_options(metadata, {OPTIONS: self._digest or ""})
                and (not self._models or metadata.get(MODEL) in self._models)
                for metadata in found
            )
        except (ObjectMissing, FileNotFoundError):
            return False

    def _source_facts(self, item: Item) -> dict[str, str]:
        """Describe the object that workers would read; empty if an upload would replace that object."""
        place = self._options.source / item.key
        if isinstance(self._root, Path) and not is_current_copy(self._store, place, (self._root / item.key).stat()):
            return {}
        if item.etag:
            return source_facts(etag=item.etag, size=item.size, modified=item.modified)
        info = self._store.head(place)
        return source_facts(etag=info.etag, size=info.size, modified=info.modified)


class _KeySet:
    """A set of keys as 64-bit digests, sorted in 256 parts."""

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


def _output_keys(store: ObjectStore, dest: S3Url) -> Iterator[str]:
    """List the keys under a destination. The metadata of jobs, which can hold many uploads, is skipped, not listed."""
    for found in store.list(dest):
        if found.key.startswith(output_names.JOB_PREFIX):
            break
        yield found.key
    else:
        return
    for found in store.list(dest, after=output_names.BEHIND_JOBS):
        yield found.key
