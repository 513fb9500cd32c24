"""How far a download is, for whoever shows a bar: the size of the growing file, looked at now and then.

So the S3 port, whose client writes under a name of its own making, and the hub need no hooks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Told of (name, bytes here, bytes in all), from another thread and once more at the end."""

_SECONDS = 0.2


@contextlib.contextmanager
def watched(part: Path, name: str, total: int, progress: Progress | None) -> Iterator[None]:
    """Report on the file `part`, or one beside it whose name begins with that, while the block runs.

    Args:
        part: where the file grows.
        name: as the report calls it.
        total: bytes when it is complete.
        progress: None for nobody is looking: no thread is made then.
    """
    if progress is None:
        yield
        return
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SECONDS):
            progress(name, min(_largest(part), total), total)

    thread = threading.Thread(target=look, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    progress(name, total, total)


def _largest(part: Path) -> int:
    sizes = [0]
    for path in part.parent.glob(f"{part.name}*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            sizes.append(path.stat().st_size)
    return max(sizes)
