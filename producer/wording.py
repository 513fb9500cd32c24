"""Words and forms that all commands, tables and messages share: counts of a job, and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from worker.contract.job import JobView


def counts_in_words(view: JobView) -> str:
    """Return `6 of 12 images done: 5 ok, 1 failed; 4 cancelled, 2 left`. The numbers add up to the images of the job.

    An image counts as done if work on it has ended, so a cancelled image does not.
    """
    kinds = (("ok", view.ok), ("skipped", view.skipped), ("failed", view.failed), ("dead", view.dead))
    done = ", ".join(f"{number:,} {name}" for name, number in kinds if number)
    left = None if view.total is None else view.total - view.done
    rest = ", ".join(f"{number:,} {name}" for name, number in (("cancelled", view.cancelled), ("left", left)) if number)
    total = "?" if view.total is None else f"{view.total:,}"
    text = f"{view.done - view.cancelled:,} of {total} images done"
    return text + (f": {done}" if done else "") + (f"; {rest}" if rest else "")


@overload
def iso_time(seconds: float) -> str: ...
@overload
def iso_time(seconds: None) -> None: ...
def iso_time(seconds: float | None) -> str | None:
    """Return Unix seconds in ISO 8601, in UTC with Z and milliseconds; None for an unknown time."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
