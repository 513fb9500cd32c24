"""The manifest of a job: what was submitted, in S3, in order. The truth from which everything else can be rebuilt.

Gzip JSON lines in parts of `PART_IMAGES` under `{dest}/_maskmill/{job}/manifest/`; image i is line `i % PART_IMAGES`
of part `i // PART_IMAGES`, so any chunk is found without an index. Written and read in constant memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from worker.contract import output_names
from worker.contract.errors import ContractError
from worker.contract.storage import jsonlines
from worker.contract.storage.s3 import ObjectStore, S3Url

PART_IMAGES = 10_000
"""Images in one part: about 300 kB compressed."""

_NULL = "null"
_text = json.JSONEncoder(ensure_ascii=False).encode


class Entry(BaseModel):
    """One submitted object; the key is relative to the job's source."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    size: int | None = None
    """Bytes; None when the user's list did not say: the worker learns it when it reads the object."""
    etag: str = ""
    """Empty, likewise."""


class Listed(Protocol):
    """What a manifest needs of whatever is listed."""

    @property
    def key(self) -> str:
        """Relative to the job's source."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes, if known."""
        ...

    @property
    def etag(self) -> str:
        """Empty if not known."""
        ...


def job_folder(dest: S3Url, job: str) -> S3Url:
    """Where everything about a job lies, apart from its outputs."""
    return dest / f"{output_names.JOB_PREFIX}{job}/"


def _part(dest: S3Url, job: str, number: int) -> S3Url:
    return job_folder(dest, job) / f"manifest/part-{number:05d}.jsonl.gz"


class Writer:
    """Appends entries; call `close` to write the last part."""

    def __init__(self, store: ObjectStore, dest: S3Url, job: str) -> None:
        """Nothing is written before the first part is full."""
        self._store, self._dest, self._job = store, dest, job
        self._lines: list[str] = []
        self._parts = 0
        self.images = 0
        self.bytes = 0

    def add(self, item: Listed) -> None:
        """Append one object."""
        size = _NULL if item.size is None else item.size
        # Six times as fast as one dict after the other through `json.dumps`.
        self._lines.append(f'{{"key": {_text(item.key)}, "size": {size}, "etag": {_text(item.etag)}}}')
        self.images += 1
        self.bytes += item.size or 0
        if len(self._lines) == PART_IMAGES:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self._lines:
            self._flush()

    def _flush(self) -> None:
        jsonlines.write(self._store, _part(self._dest, self._job, self._parts), self._lines)
        self._parts += 1
        self._lines.clear()


def read(store: ObjectStore, dest: S3Url, job: str, total: int) -> Iterator[Entry]:
    """All entries of a job of `total` images, in order.

    Raises:
        ContractError: a part does not have the lines it should.
    """
    for number in range((total + PART_IMAGES - 1) // PART_IMAGES):
        yield from read_part(store, dest, job, number, total)


def read_part(store: ObjectStore, dest: S3Url, job: str, number: int, total: int) -> list[Entry]:
    """The entries of one part of a job of `total` images, in order.

    Raises:
        ContractError: it does not have the lines it should.
    """
    place = _part(dest, job, number)
    entries = jsonlines.read(store, place, Entry)
    expected = min(PART_IMAGES, total - number * PART_IMAGES)
    if len(entries) != expected:
        raise ContractError(f"{place} has {len(entries)} lines, {expected} were written: it was changed or replaced")
    return entries
