"""Files of this machine as items: a folder, some files, or a list of paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from producer.sources.filters import Skipped
from producer.sources.item import Item, Skip
from producer.sources.lists import Entry
from worker.contract.errors import SourceError


def folder_files(folder: Path, root: Path) -> Iterator[Item]:
    """Files below a folder, in a stable order; keys are relative to `root`, with `/`.

    Raises:
        SourceError: a name that is no valid text and so cannot be a key, or something that cannot be read.
    """
    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(files):
            yield file_item(Path(place) / name, root)


def several(paths: Sequence[Path], root: Path) -> Iterator[Item]:
    """Files, and all files below folders, in the order given."""
    for path in paths:
        if path.is_dir():
            yield from folder_files(path, root)
        else:
            yield file_item(path, root)


def listed_files(entries: Iterable[Entry], folder: Path, name: str, skipped: Skipped) -> Iterator[Item]:
    """Files that a list names, relative to `folder` or absolute below it; what is not there is counted.

    Raises:
        SourceError: a path that leads out of the folder.
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
            yield file_item(path, base)
        else:
            skipped[Skip.MISSING] += 1


def file_item(path: Path, root: Path) -> Item:
    """One file.

    Raises:
        SourceError: it cannot be read, or its name is no text.
    """
    key = path.relative_to(root).as_posix()
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{path!r}: the name is not valid UTF-8, rename the file") from error
    try:
        facts = path.stat()
    except OSError as error:
        unreadable(error)
    return Item(key, facts.st_size, "", facts.st_mtime)


def absolute(path: Path) -> Path:
    """From the root, without `..`; unlike `resolve`, links stay as they were typed."""
    return Path(os.path.normpath(path.absolute()))


def unreadable(error: OSError) -> NoReturn:
    """What a file system refuses, as our error."""
    raise SourceError(f"{error.filename}: {error.strerror}") from error
