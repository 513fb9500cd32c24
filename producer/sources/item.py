"""One object that may become an image of a job."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".tif", ".tiff"}
    | {".mpo", ".heic", ".heif"}
)
"""Suffixes taken as images. HEIC is taken too: a worker that cannot read it says so for each, which beats silence."""


class Item(NamedTuple):
    """What a source knows of an object. A tuple, because there are millions of them."""

    key: str
    """Relative to the root of the source."""

    size: int | None = None
    """Bytes; None where a list does not say."""

    etag: str = ""
    """Empty where a list does not say."""

    modified: float | None = None
    """Unix seconds; None where a list does not say."""


class Skip(StrEnum):
    """Why something was left out."""

    NOT_AN_IMAGE = "not_an_image"
    NOT_INCLUDED = "not_included"
    EXCLUDED = "excluded"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    TOO_OLD = "too_old"
    NOT_SAMPLED = "not_sampled"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    OUTSIDE_SOURCE = "outside_source"
    NOT_CURRENT = "not_current"

    @property
    def words(self) -> str:
        """As people read it."""
        return _WORDS.get(self, self.value.replace("_", " "))


_WORDS = {
    Skip.NOT_AN_IMAGE: "without an image suffix",
    Skip.NOT_INCLUDED: "not matched by --include or the glob",
    Skip.DUPLICATE: "listed more than once",
    Skip.MISSING: "listed but not there",
    Skip.OUTSIDE_SOURCE: "outside the source",
    Skip.NOT_CURRENT: "old versions and delete markers",
}


def has_image_suffix(key: str) -> bool:
    """Whether a name looks like an image; `.jpg` alone is a hidden file."""
    name = key.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES
