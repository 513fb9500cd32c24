"""The picture behind composites, put where every worker finds it, and pinned: a job has one background all along."""

from __future__ import annotations

import hashlib
from pathlib import Path

from worker.contract import names
from worker.contract.errors import ObjectMissing, SourceError
from worker.contract.objects import ObjectStore, S3Url

FOLDER = f"{names.JOB_PREFIX}backgrounds/"
"""Under a destination. Named by content, so that the same picture is uploaded once and never replaced."""


def from_bucket(store: ObjectStore, url: str) -> tuple[S3Url, str]:
    """A picture that is in S3 already, with its ETag now.

    Raises:
        SourceError: there is none.
    """
    place = S3Url.parse(url)
    try:
        return place, store.head(place).etag
    except ObjectMissing as error:
        raise SourceError(f"--background {url}: no such object") from error


def from_file(store: ObjectStore, file: Path, dest: S3Url) -> tuple[S3Url, str]:
    """Upload a picture under the destination, unless it is there.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"--background {file}: {error.strerror}") from error
    place = dest / f"{FOLDER}{digest[:32]}{file.suffix.lower()}"
    try:
        return place, store.head(place).etag
    except ObjectMissing:
        store.upload(file, place)
        return place, store.head(place).etag
