"""Read and write gzip-compressed JSON lines, the format of the large objects of a job.

The reader streams. It holds one line and one block, whatever the object unpacks to, and stops at the first line that is
wrong: other programs can write these objects.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from worker.contract.errors import ContractError, TooLarge
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

MAX_LINE_BYTES = 128 * 1024
"""Longest line. An outcome with the longest keys has about 12 kB."""

MAX_LINES = 10_000
"""Most lines of an object."""

_MAX_BYTES = 32 * 1024 * 1024
"""Largest object. A part with the longest keys, which do not compress, has 11 MB."""

_MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024
"""gzip can decompress to a thousand times its size. A manifest part with the longest possible keys has 62 MB."""

_INPUT_BYTES, _OUTPUT_BYTES = 16 * 1024, 64 * 1024
"""Compressed and decompressed bytes in one step."""

_GZIP = 16 + zlib.MAX_WBITS

_LEVEL = 3
"""Compression level. Takes half the time of the default 6 for 5 % more bytes; most of the data is random (ETags)."""

Line = TypeVar("Line", bound=BaseModel)


def write(store: ObjectStore, url: S3Url, lines: Sequence[str]) -> None:
    """Write lines to an object. Equal lines give equal bytes."""
    body = gzip.compress("\n".join(lines).encode() + b"\n", compresslevel=_LEVEL, mtime=0)
    store.put(url, body, content_type="application/gzip")


class Writer:
    """Collects lines in compressed form, and writes them to one object."""

    def __init__(self) -> None:
        """Start without lines."""
        self._compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
        self._body: list[bytes] = []
        self.lines = 0
        self.bytes = 0
        """Size so far of the compressed lines."""

    def add(self, line: str) -> None:
        """Append a line."""
        block = self._compressor.compress(f"{line}\n".encode())
        self.lines += 1
        if block:
            self._body.append(block)
            self.bytes += len(block)

    def write(self, store: ObjectStore, url: S3Url) -> None:
        """Write the lines, and nothing afterwards. Equal lines give equal bytes."""
        body = b"".join([*self._body, self._compressor.flush()])
        store.put(url, body, content_type="application/gzip")


def read(store: ObjectStore, url: S3Url, shape: type[Line], *, max_lines: int = MAX_LINES) -> Iterator[Line]:
    """Read an object, and yield every line as a `shape`.

    Raises:
        ObjectMissing: the object does not exist.
        ContractError: the object was changed or replaced.
    """
    for line in read_lines(store, url, max_lines=max_lines):
        try:
            yield shape.model_validate_json(line)
        except ValidationError as error:
            raise _changed(url, type(error).__name__) from error


def read_lines(
    store: ObjectStore, url: S3Url, *, max_lines: int = MAX_LINES, max_bytes: int = _MAX_DECOMPRESSED_BYTES
) -> Iterator[bytes]:
    """Yield the lines of an object without validating them.

    Args:
        store: the object store.
        url: the object.
        max_lines: most lines.
        max_bytes: most bytes after decompression.

    Raises:
        ObjectMissing: the object does not exist.
        ContractError: the object cannot be decompressed, is too large, or has too many or too long lines.
    """
    try:
        body, _ = store.get(url, max_bytes=_MAX_BYTES)
        for number, line in enumerate(_split(_decompressed(body, max_bytes))):
            if number >= max_lines:
                raise TooLarge(f"more than {max_lines} lines")
            yield line
    except (EOFError, zlib.error, TooLarge) as error:
        raise _changed(url, type(error).__name__) from error


def _split(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                raise TooLarge("a line is too long")
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise TooLarge("a line is too long")
    if rest:
        yield rest


def _decompressed(body: bytes, most: int) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(wbits=_GZIP)
    size = 0
    for start in range(0, len(body), _INPUT_BYTES):
        if decompressor.eof:
            raise EOFError("followed by other data")
        data, full = body[start : start + _INPUT_BYTES], True
        while data or full:  # a full block may not be all that this input gives
            block = decompressor.decompress(data, _OUTPUT_BYTES)
            data, full = decompressor.unconsumed_tail, len(block) == _OUTPUT_BYTES
            size += len(block)
            if size > most:
                raise TooLarge(f"decompresses to more than {most} bytes")
            yield block
    if not decompressor.eof or decompressor.unused_data:
        raise EOFError("truncated, or followed by other data")


def _changed(url: S3Url, reason: str) -> ContractError:
    return ContractError(f"{url} cannot be read: it was changed or replaced ({reason})")
