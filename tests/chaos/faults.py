"""The kinds of faults, their frequency, and the plan of a run. The same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

KILL = frozenset(
    {
        "model_process-sigkill",
        "model_process-hang",
        "consumer-sigkill",
        "consumer-sigterm",
        "consumer-sigquit",
        "steward-sigkill",
        "supervisor-sigkill",
        "supervisor-sigterm",
        "redis-sigkill",
        "redis-restart",
        "failover-kill",
        "failover-behind",
        "consumer-gap",
    }
)
"""Faults that end a process."""

WEIGHTS = {
    # Hard kills, 40 %: no process can clean up.
    "model_process-sigkill": 16,
    "consumer-sigkill": 18,
    "supervisor-sigkill": 6,
    # Cold shutdown, 15 %: SIGQUIT ends a Celery worker without waiting for its tasks.
    "consumer-sigquit": 15,
    # Warm shutdown, 20 %: images in flight are finished, the others returned.
    "consumer-sigterm": 14,
    "supervisor-sigterm": 6,
    # Leaders.
    "steward-sigkill": 9,
    # Stopped and continued: a swapping node, a snapshot of a virtual machine.
    "model_process-pause": 3,
    "consumer-pause": 4,
    # Stopped for good: only the watchdog ends it.
    "model_process-hang": 2,
    # S3 in trouble, for some seconds.
    "s3-errors": 3,
    "s3-busy": 2,
    "s3-hang": 2,
    "s3-cut": 2,
    # Steps of wall clocks, which then stay apart until the next step.
    "clock-node": 2,
}
"""Relative frequency, about as in the `battle` runs of celery-redis-plus: hard 40 %, cold, warm and others the rest."""

SINGLE_REDIS = {"redis-sigkill": 4, "redis-restart": 3}
"""Added where Redis is one server."""

SENTINELS = {
    "failover-kill": 3,
    # The replica missed the last seconds: what the primary acknowledged in them is gone.
    "failover-behind": 2,
    "failover-freeze": 2,
    "failover-coordinated": 2,
    # A node without a network, which does not know it.
    "network-cut": 3,
    "clock-redis": 2,
}
"""Added where Redis fails over, and each node is a host."""

_S3 = {kind for kind in WEIGHTS if kind.startswith("s3-")}
_FAILOVERS = {kind for kind in SENTINELS if kind.startswith("failover-")}
SERVICES = frozenset({*SINGLE_REDIS, *_FAILOVERS, *_S3})
"""Faults of servers, which affect all nodes for a short time."""

_CLOSEST_SECONDS = 1.5
_SETTLING_SECONDS = 5.0


@dataclass(frozen=True)
class Planned:
    """One fault of the plan."""

    at: float
    """Seconds from the start of the run."""

    kind: str
    pick: float
    """0 to 1: selects the victim among the processes that exist then."""

    seconds: float
    """How long the victim stays paused or down."""


def weights(*, sentinels: bool) -> dict[str, int]:
    """Return the kinds of faults of a run with their relative frequency."""
    return WEIGHTS | (SENTINELS if sentinels else SINGLE_REDIS)


def plan(seed: int, minutes: float, per_minute: float, kinds: Mapping[str, int]) -> Iterator[Planned]:
    """Yield faults at random times, at least 1.5 s apart, with exponentially distributed intervals beyond that."""
    rng = random.Random(seed)
    at = _SETTLING_SECONDS
    while at < minutes * 60:
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        seconds = rng.uniform(0.2, 4.0) if kind in SERVICES else rng.uniform(2.0, 25.0)
        yield Planned(at, kind, rng.random(), seconds)
        at += _CLOSEST_SECONDS + rng.expovariate(1 / max(0.1, 60 / per_minute - _CLOSEST_SECONDS))
