"""The pictures of a folder, or one picture, as the source of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from producer.sources.filters import Filters, choose
from producer.sources.item import Item, Skip, Skipped
from producer.sources.local import LocalFiles, LocalFolder, absolute, exists, suggestion
from worker.contract.errors import OutputCollision, SettingsError, SourceError
from worker.contract.outputs import OutputOptions


class Pictures:
    """Lists the pictures of a source that go to a destination."""

    def __init__(self, source: Path, dest: Path, options: OutputOptions, *, follow_links: bool = False) -> None:
        """Check both places; nothing is written.

        Args:
            source: folder or file.
            dest: folder for the outputs.
            options: the outputs.
            follow_links: also take pictures to which links in the source lead outside it.

        Raises:
            SourceError: the source does not exist.
            SettingsError: an output could replace a picture, or the destination is a file.
        """
        self.source, self.dest, self._options = absolute(source.expanduser()), absolute(dest.expanduser()), options
        self.follow_links = follow_links or not self.source.is_dir()
        """A link that is given as the source itself is followed."""
        if not exists(self.source):
            raise SourceError(f"{source} does not exist{suggestion(self.source)}")
        if self.dest.exists() and not self.dest.is_dir():
            raise SettingsError(f"{dest} is a file: give a folder for the outputs")
        self.root = self.source if self.source.is_dir() else self.source.parent
        self._outputs_inside = self._find_outputs_inside()

    def _find_outputs_inside(self) -> str | None:
        """Return the destination relative to the root with a closing slash, if it lies below the root."""
        root, dest = self.root.resolve(), self.dest.resolve()
        if root == dest or (self.source.is_dir() and root.is_relative_to(dest)):
            raise SettingsError(
                f"{self.dest} contains the pictures, so an output could replace one: choose a folder of its own, such "
                f"as {self.root.with_name(self.root.name + '-cutouts')}"
            )
        return f"{dest.relative_to(root).as_posix()}/" if dest.is_relative_to(root) else None

    def scan(self) -> tuple[list[Item], Skipped]:
        """List all pictures, and count the other files by the reason for leaving them out.

        Raises:
            SourceError: a file or folder cannot be read.
            OutputCollision: two pictures would have the same output.
        """
        skipped: Skipped = Counter()
        found = list(choose(self._items(skipped), Filters(), skipped))
        owners: dict[str, str] = {}
        for item in found:
            for output in self._options.collision_keys(item.key):
                other = owners.setdefault(output, item.key)
                if other != item.key:
                    raise OutputCollision(
                        f"{other!r} and {item.key!r} would both be written to {output!r}: rename one, or give names "
                        "that keep the suffix, such as --name '{dir}/{name}.{ext}'"
                    )
        return found, skipped

    def _items(self, skipped: Skipped) -> Iterator[Item]:
        whole = self.source.is_dir()
        source = LocalFolder(self.source, self.follow_links) if whole else LocalFiles([self.source])
        return (item for item in source.items(skipped) if not self._is_output(item.key))

    def _is_output(self, key: str) -> bool:
        """Return whether a file lies in the destination, by its name or through a link out of the source."""
        if self._outputs_inside is not None and key.startswith(self._outputs_inside):
            return True
        return (
            self.follow_links
            and self.source.is_dir()
            and (self.root / key).resolve().is_relative_to(self.dest.resolve())
        )


def describe_skipped(skipped: Skipped) -> str:
    """Return a sentence part about the files that are no pictures; empty without any."""
    count = skipped[Skip.NOT_AN_IMAGE] + skipped[Skip.MARKER]
    parts = [f"{count:,} other file{'' if count == 1 else 's'}"] if count else []
    parts += [f"{skipped[kind]:,} {kind.words}" for kind in (Skip.OUTSIDE_LINK, Skip.NOT_A_FILE) if skipped[kind]]
    return f"{', '.join(parts)} left out" if parts else ""
