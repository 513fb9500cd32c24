"""Gzip JSON lines, the form of everything long that lies in a job's folder."""

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
_MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""A part of a manifest with the longest keys there can be is 62 MB; gzip unpacks to a thousandfold."""

_LEVEL = 3
"""Of compression: half the time of the usual 6 for 5 % more bytes, most of which are random (ETags)."""

Line = TypeVar("Line", bound=BaseModel)


def write(store: ObjectStore, place: S3Url, lines: Sequence[str]) -> None:
    """Write an object; the same lines give the same bytes."""
    body = gzip.compress("\n".join(lines).encode() + b"\n", compresslevel=_LEVEL, mtime=0)
    store.put(place, body, content_type="application/gzip")


def read(store: ObjectStore, place: S3Url, shape: type[Line]) -> list[Line]:
    """Read an object.

    Raises:
        ObjectMissing: there is none.
        ContractError: it is not what was written.
    """
    try:
        return [shape.model_validate_json(line) for line in read_lines(store, place)]
    except ValidationError as error:
        raise _changed(place, error) from error


def read_lines(store: ObjectStore, place: S3Url) -> list[bytes]:
    """The lines of an object, as they are.

    Raises:
        ObjectMissing: there is none.
        ContractError: it cannot be unpacked.
    """
    try:
        body, _ = store.get(place, max_bytes=_MAX_BYTES)
        return _unpacked(body).splitlines()
    except (EOFError, zlib.error, TooLarge) as error:
        raise _changed(place, error) from error


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    text = unpacker.decompress(body, _MAX_UNPACKED_BYTES)
    if unpacker.unconsumed_tail:
        raise TooLarge(f"unpacks to more than {_MAX_UNPACKED_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise EOFError("breaks off, or goes on behind its end")
    return text


def _changed(place: S3Url, error: Exception) -> ContractError:
    return ContractError(f"{place} cannot be read: it was changed or replaced ({type(error).__name__})")
