"""Local files into the bucket, where workers can reach them. What is there unchanged is not sent again.

The copies of a folder always go to the same place under a destination, so an upload that was interrupted goes on where
it stopped, and a second job over the same folder sends what is new. A copy is taken as unchanged when size and time of
modification (to the nanosecond, in its metadata) are those of the file, as rclone does it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from producer.sources.item import Item
from producer.sources.local import absolute, unreadable
from producer.sources.lookup import in_order
from worker.contract import output_names
from worker.contract.errors import ObjectMissing
from worker.contract.storage.s3 import ObjectStore, S3Url

_AT_ONCE = 8
_MTIME = "maskmill-mtime-ns"


def upload_folder(dest: S3Url, folder: Path) -> S3Url:
    """Where the copies of a folder of this machine go under a destination."""
    path = absolute(folder)
    digest = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:40]
    return dest / f"{output_names.JOB_PREFIX}uploads/{readable}-{digest}/"


def upload(
    store: ObjectStore, folder: Path, items: Iterator[Item], place: S3Url, told: Callable[[bool], None]
) -> Iterator[Item]:
    """Copy local files, a few at a time, in order; yields each when it is there.

    Args:
        store: where to.
        folder: keys of the items are relative to it.
        items: the files.
        place: folder for the copies.
        told: called for each file, with whether it had to be sent.

    Raises:
        SourceError: a file cannot be read.
    """
    fresh = next(store.list(place), None) is None  # then there is no need to ask about each

    def one(item: Item) -> tuple[Item, bool]:
        path = folder / item.key
        try:
            facts = path.stat()
            if not fresh and is_there(store, place / item.key, facts):
                return item, False
            store.upload(path, place / item.key, metadata={_MTIME: str(facts.st_mtime_ns)})
        except OSError as error:
            unreadable(error)
        return item._replace(size=facts.st_size), True

    for item, sent in in_order(items, one, _AT_ONCE):
        told(sent)
        yield item


def is_there(store: ObjectStore, copy: S3Url, facts: os.stat_result) -> bool:
    """Whether a copy is that of the file as it is now."""
    try:
        found = store.head(copy)
    except ObjectMissing:
        return False
    return found.size == facts.st_size and found.metadata.get(_MTIME) == str(facts.st_mtime_ns)
