"""Gzip JSON lines, the form of everything long that lies in a job's folder."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from worker.contract.errors import ContractError, TooLarge
from worker.contract.objects import ObjectStore, S3Url

_MAX_BYTES = 64 * 1024 * 1024

Line = TypeVar("Line", bound=BaseModel)


def write(store: ObjectStore, place: S3Url, lines: Sequence[str]) -> None:
    """Write an object; the same lines give the same bytes."""
    body = gzip.compress("\n".join(lines).encode() + b"\n", compresslevel=6, mtime=0)
    store.put(place, body, content_type="application/gzip")


def read(store: ObjectStore, place: S3Url, shape: type[Line]) -> list[Line]:
    """Read an object.

    Raises:
        ObjectMissing: there is none.
        ContractError: it is not what was written.
    """
    try:
        body, _ = store.get(place, max_bytes=_MAX_BYTES)
        return [shape.model_validate_json(line) for line in gzip.decompress(body).splitlines()]
    except (OSError, EOFError, zlib.error, ValidationError, TooLarge) as error:
        raise ContractError(f"{place} cannot be read: it was changed or replaced ({type(error).__name__})") from error
