"""Turns and their arithmetic: a comparison without a process or a library.

Contenders take one turn each per round, in an order that rotates by one every round. So a slow minute of the machine
affects all of them, and none of them always runs first. Judge ratios rather than seconds, and never a single round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.contract.errors import SetupError

OnProgress = Callable[[str], None]
"""Called with one short line about what happens next."""


@dataclass(frozen=True)
class TurnTiming:
    """The time of one turn: a number of images, in sequence or in parallel."""

    images: int
    wall_seconds: float
    """Of all images together."""
    cpu_seconds: float
    """User and system time of the process over the turn."""

    @property
    def seconds(self) -> float:
        """Wall time per image."""
        return self.wall_seconds / self.images


class TurnTaker(Protocol):
    """A contender that can run one turn after another."""

    def turn(self) -> TurnTiming:
        """Run the images of one turn.

        Raises:
            SetupError: it cannot run.
        """


def take_turns(
    takers: Mapping[str, TurnTaker],
    rounds: int,
    *,
    on_turn: Callable[[int, str], None],
    on_failure: Callable[[str, SetupError], None],
) -> dict[str, list[TurnTiming]]:
    """Let every contender take one turn per round.

    Args:
        takers: contenders by name.
        rounds: turns of each.
        on_turn: called with the round (from 1) and the name before each turn.
        on_failure: called with the name and the error of a contender that raised. It takes no further turn, and its
            timings are dropped: they would belong to other rounds than those of the rest.

    Returns:
        The timings of each contender, in the order of rounds.
    """
    timings: dict[str, list[TurnTiming]] = {name: [] for name in takers}
    for number in range(rounds):
        for name in rotated(list(timings), number):
            on_turn(number + 1, name)
            try:
                timings[name].append(takers[name].turn())
            except SetupError as error:
                del timings[name]
                on_failure(name, error)
    return timings


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names in the same cyclic order, starting `by` places later."""
    start = by % len(names) if names else 0
    return [*names[start:], *names[:start]]


def best(timings: Sequence[TurnTiming]) -> float:
    """Return the smallest wall time per image, in seconds: the speed of the machine without disturbance."""
    return min(timing.seconds for timing in timings)


def median(timings: Sequence[TurnTiming]) -> float:
    """Return the median wall time per image, in seconds."""
    return statistics.median(timing.seconds for timing in timings)


def least_cpu(timings: Sequence[TurnTiming]) -> float:
    """Return the smallest CPU time per image, in seconds: the figure to compare on a machine with other load.

    Threads that wait for one another in a loop count as busy, so only one thread per stream shows the work itself.
    """
    return min(timing.cpu_seconds / timing.images for timing in timings)


def paired_speedup(base: Sequence[TurnTiming], other: Sequence[TurnTiming]) -> float:
    """Return how many times faster `other` is than `base`: the median over rounds of the ratio within a round.

    Raises:
        ValueError: the numbers of rounds differ.
    """
    return statistics.median(b.seconds / o.seconds for b, o in zip(base, other, strict=True))
