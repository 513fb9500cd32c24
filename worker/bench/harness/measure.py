"""Taking turns and counting: the arithmetic of a comparison, without a process or a library.

Contenders run one turn each per round, in an order that moves on by one every round: a slow minute of the machine costs
all of them, and nobody always runs first. Judge ratios, not seconds, and single rounds never.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.contract.errors import SetupError


@dataclass(frozen=True)
class Sample:
    """One turn: so many images, one after the other or side by side."""

    images: int
    wall_seconds: float
    cpu_seconds: float
    """User and system time of the process over the turn."""

    @property
    def seconds(self) -> float:
        """Wall time per image."""
        return self.wall_seconds / self.images


class Runner(Protocol):
    """Something that can be asked to take a turn."""

    def turn(self) -> Sample:
        """Run the images of one turn.

        Raises:
            SetupError: it cannot go on.
        """


def take_turns(
    runners: Mapping[str, Runner],
    rounds: int,
    *,
    say: Callable[[int, str], None],
    fail: Callable[[str, SetupError], None],
) -> dict[str, list[Sample]]:
    """Let every runner take one turn per round.

    Args:
        runners: by name.
        rounds: turns of each.
        say: told round (from 1) and name before each turn.
        fail: told of a runner that raised; it takes no further turn and its samples are dropped, as they would stand
            for other rounds than those of the rest.

    Returns:
        The samples of each runner in the order of rounds.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in runners}
    for number in range(rounds):
        for name in rotated(list(samples), number):
            say(number + 1, name)
            try:
                samples[name].append(runners[name].turn())
            except SetupError as error:
                del samples[name]
                fail(name, error)
    return samples


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The same names, beginning `by` places later."""
    start = by % len(names) if names else 0
    return [*names[start:], *names[:start]]


def best(samples: Sequence[Sample]) -> float:
    """Smallest wall time per image, in seconds: what the machine can do when nothing disturbs."""
    return min(sample.seconds for sample in samples)


def median(samples: Sequence[Sample]) -> float:
    """Median wall time per image, in seconds."""
    return statistics.median(sample.seconds for sample in samples)


def least_cpu(samples: Sequence[Sample]) -> float:
    """Smallest CPU time per image, in seconds: what is left to compare on a machine that others use too.

    Threads that wait for one another in a loop count as busy, so only one thread per stream gives the bare work.
    """
    return min(sample.cpu_seconds / sample.images for sample in samples)


def paired_speedup(base: Sequence[Sample], other: Sequence[Sample]) -> float:
    """How many times faster `other` is than `base`: the median over rounds of the ratio within a round.

    Raises:
        ValueError: not the same number of rounds.
    """
    return statistics.median(b.seconds / o.seconds for b, o in zip(base, other, strict=True))
