"""S3 Inventory as a source: an inventory manifest that names gzip CSV files without a header.

The manifest (`manifest.json`) also gives their columns and MD5 digests.
Layout and encoding: Amazon S3 User Guide, "Amazon S3 Inventory"; keys in the CSV files are URL-encoded.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

from producer.sources.item import Item, Skip, Skipped
from producer.sources.line_reader import numbered_lines, open_list
from producer.sources.list_formats import item_from_fields
from worker.contract.errors import SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_ARN = re.compile(r"arn:aws[a-z-]*:s3:::")
"""Of a bucket, in any partition: `aws`, `aws-cn`, `aws-us-gov`, ..."""


@dataclass(frozen=True)
class S3Inventory:
    """Current objects of an inventory that lie under the root."""

    store: ObjectStore
    """Also holds the data files, in the bucket that the inventory manifest names."""

    root: S3Url
    place: str
    """Path or s3:// URL of the inventory manifest, or `-`."""

    is_whole = False

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """Read the inventory; objects outside the root, old versions and delete markers are counted in `skipped`.

        Raises:
            SourceError: not an inventory, of another bucket, or not in CSV.
            DigestMismatch: a data file does not have the digest in the inventory manifest.
        """
        with open_list(self.place, self.store) as file:
            facts = _facts(file, self.place)
        if facts["sourceBucket"] != self.root.bucket:
            raise SourceError(
                f"{self.place} is an inventory of bucket {facts['sourceBucket']!r}, the source is {self.root}: "
                f"give s3://{facts['sourceBucket']}/ as SOURCE"
            )
        columns = [column.strip().lower() for column in facts["fileSchema"].split(",")]
        bucket = _ARN.sub("", facts["destinationBucket"], count=1)
        for data in facts["files"]:
            name = str(S3Url(bucket, data["key"]))
            with open_list(name, self.store, md5=data.get("MD5checksum", "")) as rows:
                yield from _rows(rows, name, columns, self.root, skipped)


def _facts(file: BinaryIO, place: str) -> dict[str, Any]:
    """Read and check an inventory manifest."""
    body = file.read(_MAX_MANIFEST_BYTES + 1)
    try:
        facts = json.loads(body)
        form, schema = facts["fileFormat"], facts["fileSchema"]
        _ = facts["sourceBucket"], facts["destinationBucket"], [data["key"] for data in facts["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{place} is not the manifest.json of an S3 Inventory; for JSON Lines add --manifest-format jsonl"
        ) from error
    if str(form).upper() != "CSV":
        raise SourceError(f"{place}: an inventory in {form} is not supported; configure S3 to write it as CSV")
    if "key" not in [column.strip().lower() for column in schema.split(",")]:
        raise SourceError(f"{place}: its data files have no column Key")
    return dict(facts)


def _rows(file: BinaryIO, name: str, columns: list[str], root: S3Url, skipped: Skipped) -> Iterator[Item]:
    rows = csv.reader((line for _, line in numbered_lines(file, name)), strict=True)
    try:
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if len(row) != len(columns):
                raise SourceError(f"{where}: {len(row)} fields, its schema has {len(columns)}")
            fields = dict(zip(columns, row, strict=True))
            key = unquote_plus(fields["key"])
            if fields.get("islatest", "true") == "false" or fields.get("isdeletemarker", "false") == "true":
                skipped[Skip.NOT_CURRENT] += 1
            elif not key.startswith(root.key):
                skipped[Skip.OUTSIDE_SOURCE] += 1
            elif key != root.key:
                key = key.removeprefix(root.key)
                size, etag, modified = fields.get("size"), fields.get("etag"), fields.get("lastmodifieddate")
                yield item_from_fields(key, size, etag, modified, where)
    except csv.Error as error:
        raise SourceError(f"{name}, line {rows.line_num}: not CSV: {error}") from error
