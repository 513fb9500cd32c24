"""The interface of every kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from producer.sources.item import Item, Skipped
from worker.contract.s3url import S3Url


class KeySource(Protocol):
    """A source that is resolved: its root is known, nothing is listed yet."""

    @property
    def root(self) -> S3Url | Path:
        """Prefix or local folder that keys are relative to. Workers read local files only after their upload."""

    @property
    def is_whole(self) -> bool:
        """Whether the source is everything under the root, not a selection from it."""

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the source, in constant memory. Call it once: standard input cannot be read again.

        Args:
            skipped: counts what the source itself leaves out, while the items are consumed.

        Raises:
            SourceError: the source cannot be read, or names something outside its root.
            ServiceError: S3 failed.
        """
