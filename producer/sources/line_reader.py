"""Read a key list line by line: from a file, an object in S3 or standard input, plain or gzip."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from worker.contract.errors import DigestMismatch, ObjectMissing, SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

STDIN = "-"
_GZIP = b"\x1f\x8b"
_MAX_LINE_BYTES = 64 * 1024
_BLOCK = 1 << 20


@contextlib.contextmanager
def open_list(place: str, store: ObjectStore, *, md5: str = "") -> Iterator[BinaryIO]:
    """Open a key list for reading, decompressed.

    An object is first copied to the local disk: working through a listing can take an hour, and must not hold a
    connection for that long.

    Args:
        place: path, s3:// URL or `-`.
        store: for s3:// URLs.
        md5: hex digest that the bytes at `place` must have; empty: any.

    Raises:
        SourceError: the list cannot be read.
        DigestMismatch: the list has another digest.
    """
    with contextlib.ExitStack() as stack:
        raw = _raw(place, store, stack)
        if md5:
            _verify(raw, md5, place)
        head = raw.peek(len(_GZIP))[: len(_GZIP)]
        try:
            yield cast(BinaryIO, stack.enter_context(gzip.open(raw))) if head == _GZIP else cast(BinaryIO, raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"{place} is damaged: {error}; write or copy it again") from error


def _raw(place: str, store: ObjectStore, stack: contextlib.ExitStack) -> io.BufferedReader:
    if place == STDIN:
        return cast(io.BufferedReader, sys.stdin.buffer)
    path = Path(place).expanduser()
    if place.startswith("s3://"):
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maskmill-"))) / "list"
        try:
            store.download(S3Url.parse(place), path)
        except ObjectMissing as error:
            raise SourceError(str(error)) from error
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error.strerror}") from error


def _verify(raw: io.BufferedReader, md5: str, place: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    while block := raw.read(_BLOCK):
        digest.update(block)
    if digest.hexdigest() != md5.lower():
        raise DigestMismatch(f"{place} is not the file that its manifest.json describes; use a complete inventory")
    raw.seek(0)


def numbered_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of every line, without a byte order mark, with the line ending.

    Raises:
        SourceError: a line is not UTF-8, or longer than any key can be.
    """
    number = 0
    while raw := file.readline(_MAX_LINE_BYTES):
        number += 1
        if len(raw) == _MAX_LINE_BYTES:
            raise SourceError(f"{name}, line {number}: longer than {_MAX_LINE_BYTES} bytes; is it a list of keys?")
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"{name}, line {number}: not UTF-8; save the list as UTF-8 text") from error
