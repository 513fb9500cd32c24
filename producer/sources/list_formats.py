"""Formats of key lists: one key per line, CSV with a header, or JSON Lines.

    txt     a key or s3:// URL on each line; empty lines are ignored
    csv     a header with a column `key` (or `url`); `size`, `etag` and `last_modified` are used if present
    jsonl   a string on each line, or an object with the same names

Column names are compared without case and underscores, so listings of other tools (`Key`, `LastModified`) can be used
directly. Keys are taken literally: only S3 Inventory encodes them.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from producer.sources.item import Item
from producer.sources.line_reader import STDIN, numbered_lines
from worker.contract.errors import SourceError
from worker.contract.printable import is_utf8
from worker.contract.storage.s3 import plain_etag


class ListFormat(StrEnum):
    """Format of a key list."""

    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"
    INVENTORY = "inventory"


_SUFFIXES = {
    ".txt": ListFormat.TXT,
    ".lst": ListFormat.TXT,
    ".list": ListFormat.TXT,
    ".csv": ListFormat.CSV,
    ".jsonl": ListFormat.JSONL,
    ".ndjson": ListFormat.JSONL,
    ".json": ListFormat.INVENTORY,
}

MAX_OBJECT_BYTES = 2**50
"""Largest size that a list may give; S3 stores objects of up to 50 TB."""

_MAX_ETAG = 256
"""Characters. S3 uses 32 to 40."""

Entry = tuple[int, Item]
"""Line number, and the item on that line; its key may still be a URL or a path."""


def format_from_name(place: str) -> ListFormat | None:
    """Return the format that the suffix of a name stands for; None for standard input, whose first line decides.

    Raises:
        SourceError: the suffix stands for no supported format.
    """
    if place == STDIN:
        return None
    suffix = PurePosixPath(place.removesuffix(".gz")).suffix.lower()
    if suffix in (".parquet", ".orc", ".avro"):
        raise SourceError(f"{place}: {suffix[1:]} is not supported; export the keys as csv, jsonl or txt")
    if suffix not in _SUFFIXES:
        raise SourceError(
            f"{place}: the name does not show the format; add --manifest-format txt, csv, jsonl or inventory"
        )
    return _SUFFIXES[suffix]


def read_entries(file: BinaryIO, form: ListFormat | None, name: str) -> Iterator[Entry]:
    """Read every entry of an open key list.

    Args:
        file: the list, decompressed.
        form: txt, csv or jsonl; None: the first line decides between txt and jsonl.
        name: of the list, for messages.

    Raises:
        SourceError: a line does not have that format; the message names the line.
    """
    numbered = numbered_lines(file, name)
    if form is None:
        first = next((line for line in numbered if line[1].strip()), None)
        if first is None:
            return
        form = ListFormat.JSONL if first[1].lstrip().startswith(("{", '"')) else ListFormat.TXT
        numbered = itertools.chain([first], numbered)
    reader = {ListFormat.TXT: _txt, ListFormat.CSV: _csv, ListFormat.JSONL: _jsonl}[form]
    yield from reader(numbered, name)


def _txt(numbered: Iterator[tuple[int, str]], name: str) -> Iterator[Entry]:
    for number, line in numbered:
        text = line.removesuffix("\n").removesuffix("\r")
        if text.strip():
            yield number, Item(text)


def _jsonl(numbered: Iterator[tuple[int, str]], name: str) -> Iterator[Entry]:
    for number, line in numbered:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
            raise SourceError(f"{name}, line {number}: not JSON: write one string or object on each line") from error
        if isinstance(value, str):
            yield number, Item(_key(value, f"{name}, line {number}"))
        elif isinstance(value, dict):
            fields = {_plain(str(column)): value[column] for column in value}
            yield number, _item(fields, f"{name}, line {number}")
        else:
            raise SourceError(f"{name}, line {number}: neither a string nor an object")


def _csv(numbered: Iterator[tuple[int, str]], name: str) -> Iterator[Entry]:
    rows = csv.reader((line for _, line in numbered), strict=True)
    try:
        header = [_plain(column) for column in next(rows, [])]
        if not {"key", "url"} & set(header):
            raise SourceError(
                f"{name}: its first line has no column `key` or `url` (found: {', '.join(header) or 'nothing'})"
            )
        for row in rows:
            if row:
                where = f"{name}, line {rows.line_num}"
                if len(row) != len(header):
                    raise SourceError(f"{where}: {len(row)} fields, the header has {len(header)}; quote commas in keys")
                yield rows.line_num, _item(dict(zip(header, row, strict=True)), where)
    except csv.Error as error:
        raise SourceError(f"{name}, line {rows.line_num}: not CSV: {error}") from error


def _plain(column: str) -> str:
    return column.strip().lower().replace("_", "")


def _item(fields: Mapping[str, Any], where: str) -> Item:
    key = fields.get("key") or fields.get("url")
    if not isinstance(key, str):
        raise SourceError(f"{where}: no text under `key` or `url`")
    key = _key(key, where)
    return item_from_fields(key, fields.get("size"), fields.get("etag"), fields.get("lastmodified"), where)


def _key(key: str, where: str) -> str:
    if not key:
        raise SourceError(f"{where}: an empty text cannot be a key")
    if not is_utf8(key):
        raise SourceError(f"{where}: {key[:80]!r} is not valid Unicode text, so it cannot be a key")
    return key


def item_from_fields(key: str, size: Any, etag: Any, modified: Any, where: str) -> Item:
    """Return the item that the fields of a list describe; empty fields count as unknown.

    Args:
        key: of the object.
        size: bytes, as a number or text.
        etag: with or without quotes.
        modified: an ISO time.
        where: list and line, for messages.

    Raises:
        SourceError: a field is invalid.
    """
    try:
        return Item(
            key,
            None if size is None or size == "" else _size(size),
            plain_etag(_etag(etag)) if etag else "",
            None if modified is None or modified == "" else _time(modified),
        )
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{where}: {error}; `size` is a number of bytes, `etag` a text, `last_modified` an ISO time"
        ) from error


def _size(given: Any) -> int:
    """Return a number of bytes. A program that knows no whole numbers writes 5.0."""
    size: int | None = None
    if isinstance(given, str):
        digits = given.strip()
        size = int(digits) if digits.isascii() and digits.isdecimal() else None
    elif not isinstance(given, bool) and (isinstance(given, int) or (isinstance(given, float) and given.is_integer())):
        size = int(given)
    if size is None or not 0 <= size <= MAX_OBJECT_BYTES:
        raise ValueError(f"{given!r:.80} is not the size of an object")
    return size


def _etag(given: Any) -> str:
    if not isinstance(given, str) or len(given) > _MAX_ETAG or not given.isprintable():
        raise ValueError(f"{given!r:.80} is not an ETag")
    return given


def _time(given: Any) -> float:
    if not isinstance(given, str):
        raise ValueError(f"{given!r:.80} is not a time")
    return datetime.fromisoformat(given).timestamp()


def key_lines(keys: Iterable[str]) -> Iterator[str]:
    """Yield a line of a jsonl list for each key.

    Raises:
        SourceError: a key is not valid Unicode text.
    """
    for number, key in enumerate(keys, 1):
        yield json.dumps(_key(key, f"key {number}"), ensure_ascii=False) + "\n"
