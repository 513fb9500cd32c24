"""Words and forms that all commands, tables and messages share: counts of a job, costs and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from worker.contract.job import JobView
from worker.contract.settings import JobSettings


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


def cost_in_words(core_hours: float, jobs: JobSettings) -> str:
    """Return `0.52 core-hours`, and with a price `0.52 core-hours, 0.026 EUR`."""
    cost = cost_of(core_hours, jobs)
    price = "" if cost is None else f", {cost:,.3g} {jobs.currency or '(no currency set)'}"
    return f"{core_hours:,.2g} core-hours{price}"


def cost_of(core_hours: float, jobs: JobSettings) -> float | None:
    """Return the cost of core-hours in the currency of the settings; None without a price."""
    return None if jobs.price_per_core_hour is None else core_hours * jobs.price_per_core_hour


def cost_fields(core_hours: float | None, jobs: JobSettings) -> dict[str, object]:
    """Return the fields `cost` and `currency` of a JSON line; empty without a price."""
    if core_hours is None or jobs.price_per_core_hour is None:
        return {}
    return {"cost": float(f"{core_hours * jobs.price_per_core_hour:.4g}"), "currency": jobs.currency}


@overload
def iso_time(seconds: float) -> str: ...
@overload
def iso_time(seconds: None) -> None: ...
def iso_time(seconds: float | None) -> str | None:
    """Return Unix seconds in ISO 8601, in UTC with Z and milliseconds; None for an unknown time."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
