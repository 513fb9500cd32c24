"""S3 Inventory as a source: an inventory manifest that names gzip CSV files without a header.

The manifest (`manifest.json`) also gives their columns and MD5 digests.
Layout and encoding: Amazon S3 User Guide, "Amazon S3 Inventory"; keys in the CSV files are URL-encoded.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from producer.sources.item import Item, Skip, Skipped
from producer.sources.line_reader import numbered_lines, open_list
from producer.sources.list_formats import item_from_fields
from worker.contract.errors import SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_ARN = re.compile(r"arn:aws[a-z-]*:s3:::")
"""Of a bucket, in any partition: `aws`, `aws-cn`, `aws-us-gov`, ..."""


class _DataFile(BaseModel):
    """A CSV file of an inventory."""

    key: str
    MD5checksum: str = ""


class _Manifest(BaseModel):
    """The manifest of an inventory; fields that are not needed are ignored."""

    model_config = ConfigDict(alias_generator=to_camel)

    source_bucket: str
    destination_bucket: str
    file_format: str
    file_schema: str
    files: list[_DataFile]

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns of all data files, in lower case."""
        return [column.strip().lower() for column in self.file_schema.split(",")]


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
            facts = _read_manifest(file, self.place)
        if facts.source_bucket != self.root.bucket:
            raise SourceError(
                f"{self.place} is an inventory of bucket {facts.source_bucket!r}, the source is {self.root}: "
                f"give s3://{facts.source_bucket}/ as SOURCE"
            )
        bucket = _ARN.sub("", facts.destination_bucket, count=1)
        for data in facts.files:
            name = str(S3Url(bucket, data.key))
            with open_list(name, self.store, md5=data.MD5checksum) as rows:
                yield from _rows(rows, name, facts.columns, self.root, skipped)


def _read_manifest(file: BinaryIO, place: str) -> _Manifest:
    body = file.read(_MAX_MANIFEST_BYTES + 1)
    try:
        facts = _Manifest.model_validate_json(body)
    except ValidationError as error:
        raise SourceError(
            f"{place} is not the manifest.json of an S3 Inventory; for JSON Lines add --manifest-format jsonl"
        ) from error
    if facts.file_format.upper() != "CSV":
        raise SourceError(
            f"{place}: an inventory in {facts.file_format} is not supported; configure S3 to write it as CSV"
        )
    if "key" not in facts.columns:
        raise SourceError(f"{place}: its data files have no column Key")
    return facts


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
