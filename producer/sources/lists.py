"""Lists of keys: one per line, CSV with a header, or JSON lines.

    txt     a key or s3:// URL on each line; empty lines are passed over
    csv     a header that names a column `key` (or `url`); `size`, `etag` and `last_modified` are used if there
    jsonl   on each line a string, or an object with the same names

Names of columns are read without regard to case and underscores, so listings of other tools (`Key`, `LastModified`)
work as they are. Keys are taken literally: only S3 Inventory encodes them.
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
from producer.sources.line_reader import STDIN, lines
from worker.contract.errors import SourceError


class ListFormat(StrEnum):
    """How a list is written."""

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
"""Number of a line, and what it says; the key may still be a URL or a path."""


def format_of(place: str) -> ListFormat | None:
    """The format that a name stands for; None for standard input, whose first line tells.

    Raises:
        SourceError: the name stands for no format that is read here.
    """
    if place == STDIN:
        return None
    suffix = PurePosixPath(place.removesuffix(".gz")).suffix.lower()
    if suffix in (".parquet", ".orc", ".avro"):
        raise SourceError(f"{place}: {suffix[1:]} is not read here; export the keys as csv, jsonl or txt")
    if suffix not in _SUFFIXES:
        raise SourceError(
            f"{place}: its name does not tell what it is; add --manifest-format txt, csv, jsonl or inventory"
        )
    return _SUFFIXES[suffix]


def read(file: BinaryIO, form: ListFormat | None, name: str) -> Iterator[Entry]:
    """Every entry of an open list.

    Raises:
        SourceError: it is not of that format; the line is named.
    """
    numbered = lines(file, name)
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
            raise SourceError(f"{name}, line {number}: not JSON: one string or object on each line") from error
        if isinstance(value, str):
            yield number, Item(value)
        elif isinstance(value, dict):
            yield number, _item({_plain(str(column)): value[column] for column in value}, f"{name}, line {number}")
        else:
            raise SourceError(f"{name}, line {number}: neither a string nor an object")


def _csv(numbered: Iterator[tuple[int, str]], name: str) -> Iterator[Entry]:
    rows = csv.reader((line for _, line in numbered), strict=True)
    try:
        header = [_plain(column) for column in next(rows, [])]
        if not {"key", "url"} & set(header):
            raise SourceError(
                f"{name}: its first line names no column `key` or `url` (found: {', '.join(header) or 'nothing'})"
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
    return item_of(key, fields.get("size"), fields.get("etag"), fields.get("lastmodified"), where)


def item_of(key: str, size: Any, etag: Any, modified: Any, where: str) -> Item:
    """An item of what a list says of it; empty values are unknown ones.

    Raises:
        SourceError: size or time are none.
    """
    try:
        return Item(
            key,
            int(size) if size not in (None, "") else None,
            str(etag or "").strip('"'),
            datetime.fromisoformat(str(modified)).timestamp() if modified else None,
        )
    except ValueError as error:
        raise SourceError(f"{where}: {error}; `size` is a number of bytes, `last_modified` an ISO time") from error
