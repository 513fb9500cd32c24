"""The manifest of a job: the ordered list of its images in S3, from which the job's other state can be rebuilt.

It consists of gzip-compressed JSON lines in parts of `PART_IMAGES` under `{dest}/_maskmill/{job}/manifest/`. Image i is
line `i % PART_IMAGES` of part `i // PART_IMAGES`, so a chunk is found without an index. Reading and writing take
constant memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from worker.contract import output_names
from worker.contract.errors import ContractError
from worker.contract.messages import MAX_KEY_BYTES
from worker.contract.s3url import S3Url
from worker.contract.storage import jsonlines
from worker.contract.storage.s3 import ObjectStore

PART_IMAGES = 10_000
"""Images per part, about 300 kB compressed."""

PARTS = "manifest/part-"
"""Beginning of the names of the parts in the job's folder."""

_NULL = "null"
_text = json.JSONEncoder(ensure_ascii=False).encode


class Entry(BaseModel):
    """One image of a job. The key is relative to the job's source."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(max_length=MAX_KEY_BYTES)
    size: int | None = None
    """Size in bytes; None if the user's list does not contain it. The worker gets it when it reads the object."""
    etag: str = Field(default="", max_length=MAX_KEY_BYTES)
    """ETag; empty if the user's list does not contain it."""


class Listed(Protocol):
    """The attributes of a listed object that a manifest stores."""

    @property
    def key(self) -> str:
        """Key relative to the job's source."""
        ...

    @property
    def size(self) -> int | None:
        """Size in bytes; None if unknown."""
        ...

    @property
    def etag(self) -> str:
        """ETag; empty if unknown."""
        ...


def job_folder(dest: S3Url, job: str) -> S3Url:
    """Return the folder of the job metadata: everything that maskmill stores for a job except its outputs."""
    return dest / f"{output_names.JOB_PREFIX}{job}/"


def _part(dest: S3Url, job: str, number: int) -> S3Url:
    return job_folder(dest, job) / f"{PARTS}{number:05d}.jsonl.gz"


class Writer:
    """Append entries to a manifest. `close` writes the last part."""

    def __init__(self, store: ObjectStore, dest: S3Url, job: str) -> None:
        """Start an empty manifest. Nothing is written until the first part is full."""
        self._store, self._dest, self._job = store, dest, job
        self._lines: list[str] = []
        self._parts = 0
        self.images = 0
        self.bytes = 0

    def add(self, item: Listed) -> None:
        """Append one image."""
        size = _NULL if item.size is None else item.size
        # Six times as fast as `json.dumps` of one dict per image.
        self._lines.append(f'{{"key": {_text(item.key)}, "size": {size}, "etag": {_text(item.etag)}}}')
        self.images += 1
        self.bytes += item.size or 0
        if len(self._lines) == PART_IMAGES:
            self._flush()

    def close(self) -> None:
        """Write the remaining entries."""
        if self._lines:
            self._flush()

    def _flush(self) -> None:
        jsonlines.write(self._store, _part(self._dest, self._job, self._parts), self._lines)
        self._parts += 1
        self._lines.clear()


def read(store: ObjectStore, dest: S3Url, job: str, total: int) -> Iterator[Entry]:
    """Yield all entries of a job of `total` images, in order.

    Raises:
        ContractError: a part does not have the expected number of lines.
    """
    for number in range((total + PART_IMAGES - 1) // PART_IMAGES):
        yield from iterate_part(store, dest, job, number, total)


def read_part(store: ObjectStore, dest: S3Url, job: str, number: int, total: int) -> list[Entry]:
    """Return the entries of one part of a job of `total` images, in order.

    Raises:
        ContractError: the part does not have the expected number of lines.
    """
    return list(iterate_part(store, dest, job, number, total))


def iterate_part(store: ObjectStore, dest: S3Url, job: str, number: int, total: int) -> Iterator[Entry]:
    """Yield the entries of one part of a job of `total` images, in order, in constant memory.

    Raises:
        ContractError: a line is no entry, or, at the end, the part does not have the expected number of lines.
    """
    url = _part(dest, job, number)
    expected, found = min(PART_IMAGES, total - number * PART_IMAGES), 0
    for entry in jsonlines.read(store, url, Entry, max_lines=PART_IMAGES + 1):
        found += 1
        if found <= expected:
            yield entry
    if found != expected:
        raise ContractError(f"{url} has {found} lines instead of {expected}: it was changed or replaced")
