"""From SOURCE as it was typed to a root and an iterator of items under it."""

from __future__ import annotations

import difflib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from producer.sources import inventory, line_reader, lists, local
from producer.sources.filters import Filters, Skipped
from producer.sources.globs import is_glob, literal_folder, matcher
from producer.sources.item import Item, Skip, has_image_suffix
from producer.sources.lists import Entry, ListFormat
from worker.contract.errors import SourceError
from worker.contract.messages import MAX_KEY_BYTES
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore


@dataclass(frozen=True)
class SourceSpec:
    """What to submit, as the user says it."""

    places: tuple[str, ...]
    """One s3:// prefix, object or glob; or local folders, files and globs; or `-`."""

    manifest: str | None = None
    """A list of keys relative to the place: path, s3:// URL or `-`."""

    manifest_format: ListFormat | None = None
    filters: Filters = field(default_factory=Filters)
    head: bool = False
    """Ask S3 about size and age of what lists do not say."""

    def __str__(self) -> str:
        """For messages."""
        return " ".join(self.places) + (f" in {self.manifest}" if self.manifest else "")


@dataclass(frozen=True)
class Source:
    """An open source."""

    root: S3Url | Path
    """Keys are relative to it; local files are uploaded before anything can work on them."""

    items: Iterator[Item]
    whole: bool
    """Everything under the root, rather than what a glob or a list picks."""

    skipped: Skipped = field(default_factory=Counter)
    """What the source itself left out; grows while it is read."""


def open_source(spec: SourceSpec, store: ObjectStore) -> Source:
    """Look at what was typed; nothing is listed yet.

    Raises:
        SourceError: it names nothing that can be a source.
    """
    if not spec.places:
        raise SourceError("no source: give an s3:// prefix, a glob, a folder, files, or - for standard input")
    first = spec.places[0]
    if len(spec.places) > 1 and any(place == line_reader.STDIN or place.startswith("s3://") for place in spec.places):
        raise SourceError(
            "several sources at once can only be local files and folders: "
            "put s3:// URLs into a list and give it with --manifest"
        )
    if first == line_reader.STDIN:
        if spec.manifest:
            raise SourceError("SOURCE - is a list by itself: give the prefix of its keys instead, with --manifest -")
        return _from_list_alone(spec, store)
    if first.startswith("s3://"):
        return _from_list(spec, spec.manifest, _s3_root(first), store) if spec.manifest else _in_s3(first, store)
    if spec.manifest:
        return _from_list(spec, spec.manifest, _local_folder(first), store)
    return _local(spec.places)


def _in_s3(text: str, store: ObjectStore) -> Source:
    if text.endswith("/") and not is_glob(text):
        return Source(S3Url.folder(text), _listed(store, S3Url.folder(text), ""), whole=True)
    if is_glob(text):
        url = S3Url.parse(text)
        if is_glob(url.bucket):
            raise SourceError(f"{text}: a bucket's name cannot have wildcards")
        folder, beginning = literal_folder(url.key)
        root, pattern = S3Url(url.bucket, folder), f"{url.key[len(folder) :]}{'**' if url.key.endswith('/') else ''}"
        skipped: Skipped = Counter()
        return Source(root, _matching(_listed(store, root, beginning), pattern, skipped), whole=False, skipped=skipped)
    if has_image_suffix(text):
        url = S3Url.parse(text)
        folder, slash, name = url.key.rpartition("/")
        root = S3Url(url.bucket, folder + slash)
        return Source(root, (item for item in _listed(store, root, name) if item.key == name), whole=False)
    return Source(S3Url.folder(text), _listed(store, S3Url.folder(text), ""), whole=True)


def _listed(store: ObjectStore, root: S3Url, beginning: str) -> Iterator[Item]:
    for found in store.list(root, beginning=beginning):
        yield Item(found.key, found.size, found.etag, found.modified)


def _matching(items: Iterable[Item], pattern: str, skipped: Skipped) -> Iterator[Item]:
    matches = matcher([f"/{pattern}"])
    for item in items:
        if matches(item.key):
            yield item
        else:
            skipped[Skip.NOT_INCLUDED] += 1


def _s3_root(text: str) -> S3Url:
    if is_glob(text):
        raise SourceError(f"{text}: with --manifest the source is the prefix that keys are relative to, not a glob")
    return S3Url.folder(text)


def _local(places: tuple[str, ...]) -> Source:
    paths = [Path(place).expanduser() for place in places]
    if len(paths) == 1 and not paths[0].exists() and is_glob(places[0]):
        folder, _ = literal_folder(str(paths[0]))
        root, pattern = _local_folder(folder or "."), str(paths[0])[len(folder) :]
        skipped: Skipped = Counter()
        return Source(root, _matching(local.folder_files(root, root), pattern, skipped), whole=False, skipped=skipped)
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path} is neither an s3:// URL nor a folder or file{_meant(path)}")
    if len(paths) == 1 and paths[0].is_dir():
        return Source(paths[0], local.folder_files(paths[0], paths[0]), whole=True)
    absolute = [local.absolute(path) for path in paths]
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    return Source(root, local.several(absolute, root), whole=False)


def _local_folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise SourceError(f"{folder} is neither an s3:// URL nor a folder{_meant(folder)}")
    return folder


def _meant(path: Path) -> str:
    """The name beside it that looks most like it."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _from_list(spec: SourceSpec, place: str, root: S3Url | Path, store: ObjectStore) -> Source:
    form = spec.manifest_format or lists.format_of(place)
    skipped: Skipped = Counter()

    def items() -> Iterator[Item]:
        with line_reader.opened(place, store) as file:
            if form is ListFormat.INVENTORY:
                if isinstance(root, Path):
                    raise SourceError(f"{place} is an S3 Inventory: its source is s3://BUCKET/, not a folder")
                yield from inventory.read(file, place, store, root, skipped)
            else:
                yield from _under(root, lists.read(file, form, place), place, skipped)

    return Source(root, items(), whole=False, skipped=skipped)


def _from_list_alone(spec: SourceSpec, store: ObjectStore) -> Source:
    """A list on standard input whose first entry tells what it is about: a bucket, or files of this machine."""
    stdin, name = line_reader.opened(line_reader.STDIN, store), "standard input"
    file: BinaryIO = stdin.__enter__()
    entries = lists.read(file, spec.manifest_format, name)
    first = next(entries, None)
    if first is None:
        raise SourceError("nothing on standard input: write keys or paths to it, one on each line")
    skipped: Skipped = Counter()
    root = S3Url(S3Url.parse(first[1].key).bucket) if first[1].key.startswith("s3://") else Path.cwd()

    def items() -> Iterator[Item]:
        try:
            yield from _under(root, itertools.chain([first], entries), name, skipped)
        finally:
            stdin.__exit__(None, None, None)

    return Source(root, items(), whole=False, skipped=skipped)


def _under(root: S3Url | Path, entries: Iterable[Entry], name: str, skipped: Skipped) -> Iterator[Item]:
    if isinstance(root, Path):
        yield from local.listed_files(entries, root, name, skipped)
        return
    prefix = str(root)
    for number, item in entries:
        key = item.key
        if "://" in key:
            if not key.startswith(prefix):
                raise SourceError(
                    f"{name}, line {number}: {key} is not under {root}: give a SOURCE that all URLs are under; "
                    "several buckets are several jobs"
                )
            key = key.removeprefix(prefix)
        if not key or len(root.key.encode()) + len(key.encode()) > MAX_KEY_BYTES:
            raise SourceError(f"{name}, line {number}: {item.key[:80]!r} is not the key of an object")
        yield item._replace(key=key)
