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
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from producer.sources.item import Item
from producer.sources.line_reader import STDIN, numbered_lines
from worker.contract.errors import SourceError
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
        except ValueError as error:
            raise SourceError(f"{name}, line {number}: not JSON: write one string or object on each line") from error
        if isinstance(value, str):
            yield number, Item(value)
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
    return item_from_fields(key, fields.get("size"), fields.get("etag"), fields.get("lastmodified"), where)


def item_from_fields(key: str, size: Any, etag: Any, modified: Any, where: str) -> Item:
    """Return the item that the fields of a list describe; empty fields count as unknown.

    Args:
        key: of the object.
        size: bytes, as a number or text.
        etag: with or without quotes.
        modified: an ISO time.
        where: list and line, for messages.

    Raises:
        SourceError: the size or the time is invalid.
    """
    try:
        return Item(
            key,
            int(size) if size not in (None, "") else None,
            plain_etag(str(etag or "")),
            datetime.fromisoformat(str(modified)).timestamp() if modified else None,
        )
    except ValueError as error:
        raise SourceError(f"{where}: {error}; `size` is a number of bytes, `last_modified` an ISO time") from error
