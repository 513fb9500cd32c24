"""The picture behind composites, put where every worker finds it, and pinned: a job has one background all along."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from worker.contract import output_names
from worker.contract.errors import ObjectMissing, SourceError
from worker.contract.outputs import OutputOptions
from worker.contract.storage.s3 import ObjectStore, S3Url

FOLDER = f"{output_names.JOB_PREFIX}backgrounds/"
"""Under a destination. Named by content, so that the same picture is uploaded once and never replaced."""


@dataclass(frozen=True)
class OutputRequest:
    """What was asked for: options, and perhaps a picture that no worker can reach yet."""

    options: OutputOptions
    background_file: Path | None = None
    """A picture of this machine to go behind composites."""

    def settled(self, store: ObjectStore, dest: str) -> OutputOptions:
        """The options with the background picture, if any, where workers find it: uploaded or looked up.

        Raises:
            SourceError: there is no such picture.
            ServiceError: S3 did not do its part.
        """
        if self.background_file is not None:
            place, etag = from_file(store, self.background_file, S3Url.folder(dest))
        elif self.options.background_picture is not None:
            place, etag = from_bucket(store, self.options.background_picture)
        else:
            return self.options
        return self.options.model_copy(update={"background": str(place), "background_etag": etag})

    def foreseen(self, store: ObjectStore, dest: str) -> OutputOptions | None:
        """The same without uploading anything; None if the picture was not used under this destination yet.

        Raises:
            SourceError: there is no such picture.
            ServiceError: S3 did not do its part.
        """
        if self.background_file is None:
            return self.settled(store, dest)
        place = _place(self.background_file, S3Url.folder(dest))
        try:
            return self.options.model_copy(update={"background": str(place), "background_etag": store.head(place).etag})
        except ObjectMissing:
            return None


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
    place = _place(file, dest)
    try:
        return place, store.head(place).etag
    except ObjectMissing:
        store.upload(file, place)
        return place, store.head(place).etag


def _place(file: Path, dest: S3Url) -> S3Url:
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"--background {file}: {error.strerror}") from error
    return dest / f"{FOLDER}{digest[:32]}{file.suffix.lower()}"
