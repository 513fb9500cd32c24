"""S3 Inventory: a `manifest.json` that names gzipped CSV files without a header, their columns and MD5 digests.

Layout and encoding: Amazon S3 User Guide, "Amazon S3 Inventory"; keys in the CSV files are URL-encoded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

from producer.sources.filters import Skipped
from producer.sources.item import Item, Skip
from producer.sources.line_reader import lines, opened
from producer.sources.lists import item_of
from worker.contract.errors import SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_ARN = "arn:aws:s3:::"


def read(file: BinaryIO, place: str, store: ObjectStore, root: S3Url, skipped: Skipped) -> Iterator[Item]:
    """Every current object of an inventory that lies under `root`; keys are relative to it.

    Args:
        file: the open `manifest.json`.
        place: where it is, for messages.
        store: has the data files, in the bucket that the manifest names.
        root: source of the job.
        skipped: counts what lies elsewhere, old versions and delete markers.

    Raises:
        SourceError: not an inventory, of another bucket, or not in CSV.
        DigestMismatch: a data file is not the one described.
    """
    facts = _facts(file, place)
    if facts["sourceBucket"] != root.bucket:
        raise SourceError(
            f"{place} is an inventory of bucket {facts['sourceBucket']!r}, the source is {root}: "
            f"give s3://{facts['sourceBucket']}/ as SOURCE"
        )
    columns = [column.strip().lower() for column in facts["fileSchema"].split(",")]
    bucket = facts["destinationBucket"].removeprefix(_ARN)
    for data in facts["files"]:
        name = str(S3Url(bucket, data["key"]))
        with opened(name, store, md5=data.get("MD5checksum", "")) as rows:
            yield from _rows(rows, name, columns, root, skipped)


def _facts(file: BinaryIO, place: str) -> dict[str, Any]:
    body = file.read(_MAX_MANIFEST_BYTES + 1)
    try:
        facts = json.loads(body)
        form, schema = facts["fileFormat"], facts["fileSchema"]
        _ = facts["sourceBucket"], facts["destinationBucket"], [data["key"] for data in facts["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{place} is not the manifest.json of an S3 Inventory; for JSON lines add --manifest-format jsonl"
        ) from error
    if str(form).upper() != "CSV":
        raise SourceError(f"{place}: an inventory in {form} is not read here; let S3 write it as CSV")
    if "key" not in [column.strip().lower() for column in schema.split(",")]:
        raise SourceError(f"{place}: its files have no column Key")
    return dict(facts)


def _rows(file: BinaryIO, name: str, columns: list[str], root: S3Url, skipped: Skipped) -> Iterator[Item]:
    rows = csv.reader((line for _, line in lines(file, name)), strict=True)
    try:
        for row in rows:
            if len(row) != len(columns):
                raise SourceError(f"{name}, line {rows.line_num}: {len(row)} fields, its schema has {len(columns)}")
            fields = dict(zip(columns, row, strict=True))
            key = unquote_plus(fields["key"])
            if fields.get("islatest", "true") == "false" or fields.get("isdeletemarker", "false") == "true":
                skipped[Skip.NOT_CURRENT] += 1
            elif not key.startswith(root.key):
                skipped[Skip.OUTSIDE_SOURCE] += 1
            elif key != root.key:
                where = f"{name}, line {rows.line_num}"
                yield item_of(
                    key.removeprefix(root.key),
                    fields.get("size"),
                    fields.get("etag"),
                    fields.get("lastmodifieddate"),
                    where,
                )
    except csv.Error as error:
        raise SourceError(f"{name}, line {rows.line_num}: not CSV: {error}") from error
