"""Read and write gzip-compressed JSON lines, the format of the large objects of a job."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from worker.contract.errors import ContractError, TooLarge
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_MAX_BYTES = 64 * 1024 * 1024
_MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024
"""A manifest part with the longest possible keys has 62 MB. gzip can decompress to a thousand times its size."""

_LEVEL = 3
"""Compression level. Takes half the time of the default 6 for 5 % more bytes; most of the data is random (ETags)."""

Line = TypeVar("Line", bound=BaseModel)


def write(store: ObjectStore, url: S3Url, lines: Sequence[str]) -> None:
    """Write lines to an object. Equal lines give equal bytes."""
    body = gzip.compress("\n".join(lines).encode() + b"\n", compresslevel=_LEVEL, mtime=0)
    store.put(url, body, content_type="application/gzip")


def read(store: ObjectStore, url: S3Url, shape: type[Line]) -> list[Line]:
    """Read an object and validate every line as a `shape`.

    Raises:
        ObjectMissing: the object does not exist.
        ContractError: the object was changed or replaced.
    """
    try:
        return [shape.model_validate_json(line) for line in read_lines(store, url)]
    except ValidationError as error:
        raise _changed(url, error) from error


def read_lines(store: ObjectStore, url: S3Url) -> list[bytes]:
    """Read the lines of an object without validating them.

    Raises:
        ObjectMissing: the object does not exist.
        ContractError: the object cannot be decompressed, or is too large.
    """
    try:
        body, _ = store.get(url, max_bytes=_MAX_BYTES)
        return _decompressed(body).splitlines()
    except (EOFError, zlib.error, TooLarge) as error:
        raise _changed(url, error) from error


def _decompressed(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    text = decompressor.decompress(body, _MAX_DECOMPRESSED_BYTES)
    if decompressor.unconsumed_tail:
        raise TooLarge(f"decompresses to more than {_MAX_DECOMPRESSED_BYTES} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise EOFError("truncated, or followed by other data")
    return text


def _changed(url: S3Url, error: Exception) -> ContractError:
    return ContractError(f"{url} cannot be read: it was changed or replaced ({type(error).__name__})")
