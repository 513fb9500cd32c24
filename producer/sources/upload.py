"""Upload local files to the bucket, where workers can read them. Unchanged copies are not sent again.

The copies of a folder always have the same place under a destination. So an interrupted upload continues where it
stopped, and a second job over the same folder sends only new files. A copy counts as unchanged if it has the size and
the modification time of the file (in nanoseconds, kept in its metadata), the rule that rclone uses.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from producer.sources.item import Item
from producer.sources.local import absolute, unreadable
from producer.sources.lookup import in_order
from worker.contract import output_names
from worker.contract.errors import ObjectMissing, SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

FOLDER = f"{output_names.JOB_PREFIX}uploads/"
"""Under a destination: the copies of local files."""

_AT_ONCE = 8
_MTIME = "maskmill-mtime-ns"


def upload_folder(dest: S3Url, folder: Path) -> S3Url:
    """Return the place under a destination for the copies of a local folder."""
    path = absolute(folder)
    digest = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:40]
    return dest / f"{FOLDER}{readable}-{digest}/"


def upload(
    store: ObjectStore, folder: Path, items: Iterator[Item], place: S3Url, on_file: Callable[[bool], None]
) -> Iterator[Item]:
    """Copy local files, 8 at a time; yield each item, in order, once its copy is in the bucket.

    Args:
        store: destination of the copies.
        folder: the keys of the items are relative to it.
        items: the files.
        place: prefix for the copies.
        on_file: called for each file, with whether it had to be sent.

    Raises:
        SourceError: a file cannot be read.
    """
    empty = next(store.list(place), None) is None  # then no copy needs a HEAD request

    def one(item: Item) -> tuple[Item, bool]:
        path = folder / item.key
        try:
            facts = path.stat()
            if not stat.S_ISREG(facts.st_mode):  # replaced since it was listed; reading a pipe could last for ever
                raise SourceError(f"{path} is no longer a file: run the command again")
            if not empty and is_current_copy(store, place / item.key, facts):
                return item, False
            store.upload(path, place / item.key, metadata={_MTIME: str(facts.st_mtime_ns)})
        except OSError as error:
            unreadable(error)
        return item._replace(size=facts.st_size), True

    for item, sent in in_order(items, one, _AT_ONCE):
        on_file(sent)
        yield item


def is_current_copy(store: ObjectStore, copy: S3Url, facts: os.stat_result) -> bool:
    """Return whether a copy exists with the size and modification time that the file has now."""
    try:
        found = store.head(copy)
    except ObjectMissing:
        return False
    # Without a size in the answer, the time decides: S3 stores an object whole or not at all.
    return found.size in (None, facts.st_size) and found.metadata.get(_MTIME) == str(facts.st_mtime_ns)
