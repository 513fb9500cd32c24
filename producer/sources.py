"""Where images come from: an S3 prefix or a local folder. Lazy, in constant memory.

Only names that look like images are taken; how many were passed over is told. Whether an object is an image is
decided by its content, in the worker.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from worker.contract import names
from worker.contract.errors import SourceError
from worker.contract.objects import ObjectInfo, ObjectStore, S3Url

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".tif", ".tiff"}
    | {".mpo", ".heic", ".heif"}
)
"""Suffixes taken as images. HEIC is taken too: a worker that cannot read it says so for each, which beats silence."""

_UPLOADS_AT_ONCE = 8


class Selection:
    """Image-like objects of a listing; counts what it passes over."""

    def __init__(self, listing: Iterator[ObjectInfo]) -> None:
        self._listing = listing
        self.passed_over = 0

    def __iter__(self) -> Iterator[ObjectInfo]:
        for item in self._listing:
            if item.key.startswith(names.JOB_PREFIX):
                continue  # reports and manifests of an earlier job are not what the user counts as files
            if _suffix(item.key) in IMAGE_SUFFIXES:
                yield item
            else:
                self.passed_over += 1


def local_files(folder: Path) -> Iterator[ObjectInfo]:
    """Files below a folder, in a stable order; keys are relative, with `/`.

    Raises:
        SourceError: not a folder, or a name that is no valid text and so cannot be a key.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is neither an s3:// URL nor a folder")
    for place, folders, files in os.walk(folder, onerror=_unreadable):
        folders.sort()
        for name in sorted(files):
            path = Path(place) / name
            key = path.relative_to(folder).as_posix()
            try:
                key.encode()
            except UnicodeEncodeError as error:
                raise SourceError(f"{path!r}: the name is not valid UTF-8, rename the file") from error
            try:
                size = path.stat().st_size
            except OSError as error:
                _unreadable(error)
            yield ObjectInfo(key, size, "", {})


def upload(store: ObjectStore, folder: Path, items: Iterator[ObjectInfo], dest: S3Url) -> Iterator[ObjectInfo]:
    """Copy local files under `dest`, a few at a time, in order; yields each when it is there."""
    with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="upload") as threads:
        under_way: deque[tuple[ObjectInfo, Future[None]]] = deque()
        for item in items:
            under_way.append((item, threads.submit(store.upload, folder / item.key, dest / item.key)))
            if len(under_way) > 2 * _UPLOADS_AT_ONCE:
                yield _uploaded(*under_way.popleft())
        while under_way:
            yield _uploaded(*under_way.popleft())


def _uploaded(item: ObjectInfo, copied: Future[None]) -> ObjectInfo:
    try:
        copied.result()
    except OSError as error:
        _unreadable(error)
    return item


def _unreadable(error: OSError) -> NoReturn:
    raise SourceError(f"{error.filename}: {error.strerror}") from error


def _suffix(key: str) -> str:
    name = key.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}".lower() if stem else ""
