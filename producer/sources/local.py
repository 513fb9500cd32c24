"""Files of this machine as a source: a folder, a glob, or some files; also the files that a list names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from producer.sources.filters import only_matching
from producer.sources.globs import literal_folder
from producer.sources.item import Item, Skip, Skipped
from producer.sources.list_formats import Entry
from worker.contract.errors import SourceError


@dataclass(frozen=True)
class LocalFolder:
    """Every file below a folder."""

    root: Path
    is_whole = True

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the folder; see `folder_files`."""
        return folder_files(self.root, self.root)


class LocalGlob:
    """Files whose path matches a glob. Only the longest folder without wildcards is listed."""

    is_whole = False

    def __init__(self, pattern: str) -> None:
        """Split the pattern into a root and the rest.

        Raises:
            SourceError: the root is not a folder.
        """
        folder, _ = literal_folder(pattern)
        self.root = existing_folder(folder or ".")
        self._pattern = pattern[len(folder) :]

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the files that match; the others are counted in `skipped`."""
        return only_matching(folder_files(self.root, self.root), self._pattern, skipped)


class LocalFiles:
    """Some files, and all files below some folders, in the order given. The root is their common folder."""

    is_whole = False

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [absolute(path) for path in paths]
        self.root = Path(os.path.commonpath([path.parent for path in self._paths]))

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the files; see `folder_files`."""
        for path in self._paths:
            if path.is_dir():
                yield from folder_files(path, self.root)
            else:
                yield _file_item(path, self.root)


def folder_files(folder: Path, root: Path) -> Iterator[Item]:
    """List the files below a folder in a stable order; keys are relative to `root`, with `/`.

    Raises:
        SourceError: a name is not valid text and so cannot be a key, or a file or folder cannot be read.
    """
    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(files):
            yield _file_item(Path(place) / name, root)


def listed_files(entries: Iterable[Entry], folder: Path, name: str, skipped: Skipped) -> Iterator[Item]:
    """Look up the files that a list names, relative to `folder` or absolute below it; missing ones are counted.

    Raises:
        SourceError: a path leads out of the folder.
    """
    base = absolute(folder)
    for number, entry in entries:
        path = absolute(base / entry.key)
        if base not in path.parents:
            raise SourceError(
                f"{name}, line {number}: {entry.key!r} is not below {base}: "
                "give the folder that holds all files as SOURCE"
            )
        if path.is_file():
            yield _file_item(path, base)
        else:
            skipped[Skip.MISSING] += 1


def _file_item(path: Path, root: Path) -> Item:
    key = path.relative_to(root).as_posix()
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{path!r}: the name is not valid UTF-8; rename the file") from error
    try:
        facts = path.stat()
    except OSError as error:
        unreadable(error)
    return Item(key, facts.st_size, "", facts.st_mtime)


def existing_folder(text: str) -> Path:
    """Return the folder that `text` names.

    Raises:
        SourceError: it is not a folder; the message suggests a similar name beside it.
    """
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise SourceError(f"{folder} is neither an s3:// URL nor a folder{suggestion(folder)}")
    return folder


def suggestion(path: Path) -> str:
    """Return `; did you mean ...?` with the most similar name in the same folder, or nothing."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def absolute(path: Path) -> Path:
    """Return the absolute path without `..`; unlike `Path.resolve`, symbolic links stay as they were typed."""
    return Path(os.path.normpath(path.absolute()))


def unreadable(error: OSError) -> NoReturn:
    """Raise a `SourceError` for an error of the file system."""
    raise SourceError(f"{error.filename}: {error.strerror}") from error
