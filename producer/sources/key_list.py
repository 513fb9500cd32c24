"""Keys that a list names as a source: a file or an object given with `--manifest`, or standard input."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from producer.sources.item import Item, Skipped
from producer.sources.line_reader import STDIN, open_list
from producer.sources.list_formats import Entry, ListFormat, read_entries
from producer.sources.local import listed_files
from worker.contract.errors import SourceError
from worker.contract.messages import MAX_KEY_BYTES
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_STDIN_NAME = "standard input"


@dataclass(frozen=True)
class KeyList:
    """Keys of a txt, csv or jsonl list, relative to the root or absolute below it."""

    store: ObjectStore
    root: S3Url | Path
    place: str
    """Path or s3:// URL of the list, or `-`."""

    form: ListFormat | None
    """None: the first line decides."""

    follow_links: bool = False
    """Take local files to which links outside the root lead."""

    is_whole = False

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """Read the list; local files that are missing are counted in `skipped`."""
        with open_list(self.place, self.store) as file:
            entries = read_entries(file, self.form, self.place)
            yield from _under(self.root, entries, self.place, skipped, follow_links=self.follow_links)


class StandardInput:
    """Keys on standard input, without a SOURCE. The first entry decides: URLs of one bucket, or local paths."""

    is_whole = False

    def __init__(self, store: ObjectStore, form: ListFormat | None, *, follow_links: bool = False) -> None:
        """Read the first entry.

        Raises:
            SourceError: standard input is empty, damaged or does not have the format.
        """
        if form is ListFormat.INVENTORY:
            raise SourceError(
                "an S3 Inventory on standard input needs its bucket: give s3://BUCKET/ as SOURCE, with --manifest -"
            )
        with contextlib.ExitStack() as stack:
            self._entries = read_entries(stack.enter_context(open_list(STDIN, store)), form, _STDIN_NAME)
            first = next(self._entries, None)
            if first is None:
                raise SourceError("nothing on standard input: write keys or paths to it, one on each line")
            self._first, self._follow_links = first, follow_links
            key = first[1].key
            self.root = S3Url(S3Url.parse(key).bucket) if key.startswith("s3://") else Path.cwd()
            self._opened = stack.pop_all()

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """Read the rest; local files that are missing are counted in `skipped`."""
        with self._opened:
            entries = itertools.chain([self._first], self._entries)
            yield from _under(self.root, entries, _STDIN_NAME, skipped, follow_links=self._follow_links)


def _under(
    root: S3Url | Path, entries: Iterable[Entry], name: str, skipped: Skipped, *, follow_links: bool
) -> Iterator[Item]:
    """Make the keys of a list relative to the root."""
    if isinstance(root, Path):
        yield from listed_files(entries, root, name, skipped, follow_links=follow_links)
        return
    prefix = str(root)
    for number, item in entries:
        key = item.key
        if "://" in key:
            if not key.startswith(prefix):
                raise SourceError(
                    f"{name}, line {number}: {key} is not under {root}: give a SOURCE that holds all URLs; "
                    "submit one job per bucket"
                )
            key = key.removeprefix(prefix)
        if not key or len(root.key.encode()) + len(key.encode()) > MAX_KEY_BYTES:
            raise SourceError(f"{name}, line {number}: {item.key[:80]!r} is not a valid S3 key")
        yield item._replace(key=key)
