"""One object that may become an image of a job, and the reasons to leave one out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".tif", ".tiff"}
    | {".mpo", ".heic", ".heif"}
)
"""Suffixes taken as images. HEIC is included: a worker that cannot read it reports each image, which beats silence."""

UNREADABLE_SUFFIXES = frozenset({".heic", ".heif"})
"""Those of formats that no worker reads: their images fail with `unsupported_format`."""


class Item(NamedTuple):
    """What a source knows about an object. A tuple, because there are millions of them."""

    key: str
    """Relative to the root of the source."""

    size: int | None = None
    """Bytes; None if a list does not give it."""

    etag: str = ""
    """Empty if a list does not give it."""

    modified: float | None = None
    """Unix seconds; None if a list does not give it."""


class Skip(StrEnum):
    """Why an object was left out."""

    MARKER = "marker"
    NOT_AN_IMAGE = "not_an_image"
    NOT_INCLUDED = "not_included"
    CASE_DIFFERS = "case_differs"
    EXCLUDED = "excluded"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    TOO_OLD = "too_old"
    NOT_SAMPLED = "not_sampled"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    OUTSIDE_SOURCE = "outside_source"
    OUTSIDE_LINK = "outside_link"
    NOT_A_FILE = "not_a_file"
    NOT_CURRENT = "not_current"

    @property
    def words(self) -> str:
        """Return the reason as text for people, to follow a count."""
        return _WORDS.get(self, self.value.replace("_", " "))


Skipped = Counter[Skip]
"""Number of objects left out, by reason."""

_WORDS = {
    Skip.MARKER: "markers of folders or Apple's `._` files",
    Skip.NOT_AN_IMAGE: "without an image suffix",
    Skip.NOT_INCLUDED: "not matched by --include or the glob",
    Skip.CASE_DIFFERS: "not matched only because upper and lower case differ",
    Skip.DUPLICATE: "listed more than once",
    Skip.MISSING: "listed but missing",
    Skip.OUTSIDE_SOURCE: "outside the source",
    Skip.OUTSIDE_LINK: "links that lead out of the folder (--follow-links takes them)",
    Skip.NOT_A_FILE: "pipes, devices or broken links",
    Skip.NOT_CURRENT: "old versions and delete markers",
}


def has_image_suffix(key: str, suffixes: Collection[str] = IMAGE_SUFFIXES) -> bool:
    """Return whether a name looks like an image, or ends in one of some suffixes; `.jpg` alone is a hidden file."""
    name = key.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in suffixes


def is_marker(item: Item) -> bool:
    """Return whether an object holds no file of a user: a marker of a folder, or what macOS keeps beside a file.

    Consoles mark a folder by an empty object `sub/`, Hadoop by `sub_$folder$`. macOS writes `._1.jpg` beside `1.jpg` on
    volumes that cannot hold its metadata (AppleDouble, RFC 1740).
    """
    name = item.key.rpartition("/")[2]
    return name.startswith("._") or (not item.size and (not name or name.endswith("_$folder$")))
