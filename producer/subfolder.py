"""Open folders below a folder without following links, for files whose names come from elsewhere."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from worker.contract.errors import SourceError

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def open_subfolder(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Create a folder below `root`, unless it exists, and yield a path that leads to it.

    `root` itself may be a link. The path is that of the opened folder in /proc: it leads to the same folder even if
    another process replaces a name by a link meanwhile.

    Args:
        root: an existing folder, or one to create.
        names: of the folders below it, outermost first.

    Raises:
        SourceError: one of these folders is a link.
        OSError: a folder cannot be created or opened.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, _FLAGS)
    try:
        path = root
        for name in names:
            path = path / name
            inner = _open_inside(folder, name, path)
            os.close(folder)
            folder = inner
        yield Path(f"/proc/self/fd/{folder}")
    finally:
        os.close(folder)


def _open_inside(folder: int, name: str, path: Path) -> int:
    """Create and open a folder inside an open one."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    try:
        return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode):
            raise SourceError(
                f"{path} is a link, and outputs are not written through links: remove it, or choose another folder"
            ) from error
        raise
