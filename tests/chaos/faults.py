"""What goes wrong, how often, and the plan of a run. The same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

KILL = frozenset(
    {
        "child-sigkill",
        "child-hang",
        "parent-sigkill",
        "parent-sigterm",
        "parent-sigquit",
        "steward-sigkill",
        "supervisor-sigkill",
        "supervisor-sigterm",
        "redis-sigkill",
        "redis-restart",
    }
)
"""Faults after which a process is gone."""

WEIGHTS = {
    # Hard kills, 40 %: no process gets to say anything.
    "child-sigkill": 16,
    "parent-sigkill": 18,
    "supervisor-sigkill": 6,
    # Cold, 15 %: SIGQUIT ends a Celery worker without waiting for its tasks.
    "parent-sigquit": 15,
    # Warm, 20 %: images in work are finished, the rest is handed back.
    "parent-sigterm": 14,
    "supervisor-sigterm": 6,
    # Those who lead.
    "steward-sigkill": 9,
    # Stopped and let go on: a swapping node, a snapshot of a virtual machine.
    "child-pause": 3,
    "parent-pause": 4,
    # Stopped for good: only the watchdog helps.
    "child-hang": 2,
    "redis-sigkill": 4,
    "redis-restart": 3,
}
"""Relative frequency, about as in the `battle` runs of celery-redis-plus: hard 40 %, cold, warm and others the rest."""

EVERYONE = ("redis-sigkill", "redis-restart")
"""They hit all nodes."""

_CLOSEST_SECONDS = 1.5
_SETTLING_SECONDS = 5.0


@dataclass(frozen=True)
class Planned:
    """One fault of the plan."""

    at: float
    """Seconds from the start of the run."""

    kind: str
    pick: float
    """0 to 1: which of those there are then."""

    seconds: float
    """How long what is paused stays so, or what is down stays down."""


def plan(seed: int, minutes: float, per_minute: float) -> Iterator[Planned]:
    """Faults at random times, at least 1.5 s apart; the time between two is exponentially distributed."""
    rng = random.Random(seed)
    at = _SETTLING_SECONDS
    while at < minutes * 60:
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        seconds = rng.uniform(0.2, 4.0) if kind in EVERYONE else rng.uniform(2.0, 25.0)
        yield Planned(at, kind, rng.random(), seconds)
        at += _CLOSEST_SECONDS + rng.expovariate(1 / max(0.1, 60 / per_minute - _CLOSEST_SECONDS))
