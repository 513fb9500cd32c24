"""Objects of one bucket as a source: a prefix, a glob, or a single object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from producer.sources.filters import only_matching
from producer.sources.globs import is_glob, literal_folder
from producer.sources.item import Item, Skipped
from worker.contract.errors import SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore


@dataclass(frozen=True)
class S3Prefix:
    """Every object under a prefix."""

    store: ObjectStore
    root: S3Url
    is_whole = True

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the prefix."""
        return _listed(self.store, self.root)


class S3Glob:
    """Objects whose key matches a glob. Only the longest prefix without wildcards is listed."""

    is_whole = False

    def __init__(self, store: ObjectStore, url: S3Url) -> None:
        """Split the URL into a root and a pattern; a pattern that ends in a slash takes everything below.

        Raises:
            SourceError: the bucket's name contains a wildcard.
        """
        if is_glob(url.bucket):
            raise SourceError(f"{url}: the name of a bucket cannot contain wildcards")
        folder, self._beginning = literal_folder(url.key)
        self._store = store
        self.root = S3Url(url.bucket, folder)
        self._pattern = url.key[len(folder) :] + ("**" if url.key.endswith("/") else "")

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the objects that match; the others are counted in `skipped`."""
        return only_matching(_listed(self._store, self.root, self._beginning), self._pattern, skipped)


class S3Object:
    """One object. Its root is the folder that it lies in."""

    is_whole = False

    def __init__(self, store: ObjectStore, url: S3Url) -> None:
        folder, slash, self._name = url.key.rpartition("/")
        self._store = store
        self.root = S3Url(url.bucket, folder + slash)

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """Yield the object, or nothing if it does not exist."""
        return (item for item in _listed(self._store, self.root, self._name) if item.key == self._name)


def _listed(store: ObjectStore, root: S3Url, beginning: str = "") -> Iterator[Item]:
    for found in store.list(root, beginning=beginning):
        yield Item(found.key, found.size, found.etag, found.modified)
