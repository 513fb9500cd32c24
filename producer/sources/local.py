"""Files of this machine as a source: a folder, a glob, or some files; also the files that a list names."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from producer.sources.filters import only_matching
from producer.sources.globs import literal_folder
from producer.sources.item import Item, Skip, Skipped
from producer.sources.list_formats import Entry
from worker.contract.errors import SourceError
from worker.contract.printable import is_utf8

_FOLDERS_KEPT = 1024
"""Folders of a list whose links were resolved and are remembered."""


@dataclass(frozen=True)
class LocalFolder:
    """Every file below a folder."""

    root: Path
    follow_links: bool = False
    is_whole = True

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the folder; see `folder_files`."""
        return folder_files(self.root, self.root, skipped, follow_links=self.follow_links)


class LocalGlob:
    """Files whose path matches a glob. Only the longest folder without wildcards is listed."""

    is_whole = False

    def __init__(self, pattern: str, *, follow_links: bool = False) -> None:
        """Split the pattern into a root and the rest.

        Raises:
            SourceError: the root is not a folder.
        """
        folder, _ = literal_folder(pattern)
        self.root = existing_folder(folder or ".")
        self._pattern = pattern[len(folder) :]
        self._follow_links = follow_links

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the files that match; the others are counted in `skipped`."""
        files = folder_files(self.root, self.root, skipped, follow_links=self._follow_links)
        return only_matching(files, self._pattern, skipped)


class LocalFiles:
    """Some files, and all files below some folders, in the order given. The root is their common folder.

    A link that is given itself is followed wherever it leads.
    """

    is_whole = False

    def __init__(self, paths: Sequence[Path], *, follow_links: bool = False) -> None:
        self._paths = [absolute(path) for path in paths]
        self._follow_links = follow_links
        self.root = Path(os.path.commonpath([path.parent for path in self._paths]))

    def items(self, skipped: Skipped) -> Iterator[Item]:
        """List the files; see `folder_files`."""
        for path in self._paths:
            if _is_folder(path):
                yield from folder_files(path, self.root, skipped, follow_links=self._follow_links)
            elif (item := _file_item(path, self.root, skipped)) is not None:
                yield item


def folder_files(folder: Path, root: Path, skipped: Skipped, *, follow_links: bool = False) -> Iterator[Item]:
    """List the files below a folder in a stable order; keys are relative to `root`, with `/`.

    A link that leads to a file inside the folder is a file. A link to a folder inside is passed over, because the files
    are listed where they lie.

    Args:
        folder: the folder.
        root: of the keys.
        skipped: counts links that lead out of the folder, and what is neither file nor folder.
        follow_links: also take what links lead to outside the folder. A folder outside is listed once, and one that
            contains this folder not at all.

    Raises:
        SourceError: a name is not valid text and so cannot be a key, or a file or folder cannot be read.
    """
    links = _Links(folder, follow=follow_links)
    folders = [folder]
    while folders:
        inside: list[Path] = []
        for entry in _sorted_entries(folders.pop()):
            path = Path(entry.path)
            if entry.is_symlink() and not links.take(path):
                skipped[Skip.OUTSIDE_LINK] += 1
            elif _is_folder(path):
                if not entry.is_symlink() or links.enter(path):
                    inside.append(path)
            elif (item := _file_item(path, root, skipped)) is not None:
                yield item
        folders += reversed(inside)


class _Links:
    """Decides which links below a folder are followed."""

    def __init__(self, folder: Path, *, follow: bool) -> None:
        self._real = Path(os.path.realpath(folder))
        self._follow = follow
        self._entered: set[str] = set()

    def take(self, path: Path) -> bool:
        """Return whether a path may be used: it leads into the folder or nowhere, or all links are followed."""
        return self._follow or Path(os.path.realpath(path)).is_relative_to(self._real) or not _leads_somewhere(path)

    def enter(self, link: Path) -> bool:
        """Return whether a link to a folder is to be listed: once for each folder outside, so that no loop arises."""
        real = os.path.realpath(link)
        if real in self._entered or Path(real).is_relative_to(self._real) or self._real.is_relative_to(real):
            return False
        self._entered.add(real)
        return True


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 -- unlike `Path.is_dir`, it never raises


def _leads_somewhere(link: Path) -> bool:
    return os.path.exists(link)  # noqa: PTH110 -- unlike `Path.exists`, it never raises


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        unreadable(error)


def listed_files(
    entries: Iterable[Entry], folder: Path, name: str, skipped: Skipped, *, follow_links: bool = False
) -> Iterator[Item]:
    """Look up the files that a list names, relative to `folder` or absolute below it.

    Missing files, links that lead out of the folder (unless `follow_links`), pipes and devices are counted.

    Raises:
        SourceError: a path leads out of the folder.
    """
    base = absolute(folder)
    links = _Links(base, follow=follow_links)
    parents = lru_cache(_FOLDERS_KEPT)(links.take)
    for number, entry in entries:
        path = absolute(base / entry.key)
        if base not in path.parents:
            raise SourceError(
                f"{name}, line {number}: {entry.key!r} is not below {base}: "
                "give the folder that holds all files as SOURCE"
            )
        if not os.path.lexists(path):
            skipped[Skip.MISSING] += 1
        elif not parents(path.parent) or (path.is_symlink() and not links.take(path)):
            skipped[Skip.OUTSIDE_LINK] += 1
        elif (item := _file_item(path, base, skipped)) is not None:
            yield item


def _file_item(path: Path, root: Path, skipped: Skipped) -> Item | None:
    """Return the item of a file; count anything else and return None."""
    key = path.relative_to(root).as_posix()
    if not is_utf8(key):
        raise SourceError(f"{path!r}: the name is not valid UTF-8; rename the file")
    try:
        facts = path.stat()
    except OSError as error:
        if not path.is_symlink():
            unreadable(error)
        skipped[Skip.NOT_A_FILE] += 1
        return None
    if not stat.S_ISREG(facts.st_mode):
        skipped[Skip.NOT_A_FILE] += 1
        return None
    return Item(key, facts.st_size, "", facts.st_mtime)


def existing_folder(text: str) -> Path:
    """Return the folder that `text` names.

    Raises:
        SourceError: it is not a folder; the message suggests a similar name beside it.
    """
    folder = Path(text).expanduser()
    if not (exists(folder) and folder.is_dir()):
        raise SourceError(f"{folder} is neither an s3:// URL nor a folder{suggestion(folder)}")
    return folder


def exists(path: Path) -> bool:
    """Return whether a path names something.

    Raises:
        SourceError: that cannot be found out, for example because the path is too long.
    """
    try:
        return path.exists()
    except OSError as error:
        unreadable(error)


def suggestion(path: Path) -> str:
    """Return `; did you mean ...?` with the most similar name in the same folder, or nothing."""
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def absolute(path: Path) -> Path:
    """Return the absolute path without `..`; unlike `Path.resolve`, symbolic links stay as they were typed."""
    return Path(os.path.normpath(path.absolute()))


def unreadable(error: OSError) -> NoReturn:
    """Raise a `SourceError` for an error of the file system."""
    raise SourceError(f"{error.filename}: {error.strerror}") from error
