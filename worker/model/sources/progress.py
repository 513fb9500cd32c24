"""The callback that reports the progress of a download."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with (file name, bytes received, bytes in total) by the downloading thread after each block, and again when
the file is complete, with both numbers equal."""


def byte_counter(name: str, total: int, on_progress: OnProgress | None) -> Callable[[int], None] | None:
    """Return a callback that adds up the bytes of one file and reports the sum, as boto3 needs it.

    boto3 passes the bytes of each block, and a negative number when it starts a broken request again.

    Returns:
        None if `on_progress` is None.
    """
    if on_progress is None:
        return None
    received = 0

    def count(size: int) -> None:
        nonlocal received
        received += size
        on_progress(name, min(received, total), total)

    return count
