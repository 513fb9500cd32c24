"""Put the background picture of composites where every worker finds it, and pin it for the whole job."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from worker.contract import output_names
from worker.contract.errors import ObjectMissing, SourceError
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

FOLDER = f"{output_names.JOB_PREFIX}backgrounds/"
"""Under a destination. Names are digests of the content, so a picture is uploaded once and never replaced."""


@dataclass(frozen=True)
class OutputRequest:
    """The outputs as requested: options, and optionally a local picture that workers cannot reach yet."""

    options: OutputOptions
    background_file: Path | None = None
    """Local picture behind composites."""

    def with_background(self, store: ObjectStore, dest: S3Url) -> OutputOptions:
        """Return the options with place and ETag of the background picture, if any; a local one is uploaded.

        Raises:
            SourceError: the picture does not exist or cannot be read.
            ServiceError: S3 failed.
        """
        if self.background_file is not None:
            place, etag = upload_file(store, self.background_file, dest)
        elif self.options.background_picture is not None:
            place, etag = pin_object(store, S3Url.parse(self.options.background_picture))
        else:
            return self.options
        return self._with(place, etag)

    def with_background_if_uploaded(self, store: ObjectStore, dest: S3Url) -> OutputOptions | None:
        """Return the same without an upload; None if the local picture has not been used under `dest` before.

        Raises:
            SourceError: the picture does not exist or cannot be read.
            ServiceError: S3 failed.
        """
        if self.background_file is None:
            return self.with_background(store, dest)
        place = _place(self.background_file, dest)
        try:
            return self._with(place, store.content_etag(place))
        except ObjectMissing:
            return None

    def _with(self, place: S3Url, etag: str) -> OutputOptions:
        return self.options.model_copy(update={"background": str(place), "background_etag": etag})


def pin_object(store: ObjectStore, place: S3Url) -> tuple[S3Url, str]:
    """Return a picture in S3 with its current ETag.

    Raises:
        SourceError: the object does not exist.
    """
    try:
        return place, store.content_etag(place)
    except ObjectMissing as error:
        raise SourceError(f"--background {place}: no such object") from error


def upload_file(store: ObjectStore, file: Path, dest: S3Url) -> tuple[S3Url, str]:
    """Upload a picture under the destination, unless it is there; return its place and ETag.

    Raises:
        SourceError: the file cannot be read.
    """
    place = _place(file, dest)
    try:
        return place, store.content_etag(place)
    except ObjectMissing:
        store.upload(file, place)
        return place, store.content_etag(place)


def _place(file: Path, dest: S3Url) -> S3Url:
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"--background {file}: {error.strerror}") from error
    return dest / f"{FOLDER}{digest[:32]}{file.suffix.lower()}"
