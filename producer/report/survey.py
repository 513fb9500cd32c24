"""One pass over the outcomes of a job, in memory that does not grow with it: counts, times, and samples to show."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.contract.messages import FLAGS, Outcome, OutcomeKind
from worker.contract.stages import Stage

TIMELINE_BINS = 120
"""Steps of the throughput over time at most."""

EXAMPLES = 5
"""Failures shown for each code."""

SLOWEST = 10

_TIMED = 20_000
"""Images whose times the percentiles are of: of more, a uniform sample (their error is then under 1 % of rank)."""

_CODES = 100
PLAIN = "plain"
"""Group of what is not conspicuous."""

Item = TypeVar("Item")


class Reservoir(Generic[Item]):
    """A uniform sample of so many of all that were added (Vitter's algorithm R)."""

    def __init__(self, size: int, random: random.Random) -> None:
        self._size, self._random = size, random
        self._seen = 0
        self.items: list[Item] = []

    def add(self, item: Item) -> None:
        """One more."""
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (at := self._random.randrange(self._seen)) < self._size:
            self.items[at] = item


@dataclass(frozen=True)
class Latency:
    """Seconds of one stage of an image."""

    stage: str
    mean: float
    median: float
    p95: float
    p99: float
    share: float
    """Of the time of all stages."""


@dataclass
class Survey:
    """What there is to tell about a job's images."""

    told: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    needs_review: int = 0
    assessed: int = 0
    """Masks about which there are facts: not of images that were up to date."""

    codes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    timeline: list[int] = field(default_factory=list)
    """Images that ended in each step from `began` on."""

    began: float = 0.0
    step: float = 1.0
    """Seconds."""

    latency: list[Latency] = field(default_factory=list)
    total_latency: Latency | None = None
    timed: int = 0
    """Images that the percentiles are of."""

    slowest: list[Outcome] = field(default_factory=list)
    samples: list[Outcome] = field(default_factory=list)
    """To show, those that a person should look at first."""


def survey(outcomes: Iterable[Outcome], *, samples: int, seed: str) -> Survey:
    """Look at all outcomes once.

    Args:
        outcomes: each image once, in any order.
        samples: images to show at most.
        seed: the same outcomes with the same seed give the same samples.
    """
    found, chance = Survey(), random.Random(seed)
    shown = {group: Reservoir[Outcome](samples, chance) for group in (*FLAGS, PLAIN)}
    timed = Reservoir[Outcome](_TIMED, chance)
    slowest: list[tuple[float, int, Outcome]] = []
    times = _Timeline()
    for outcome in outcomes:
        found.told += 1
        if outcome.at is not None:
            times.add(outcome.at)
        if outcome.kind in (OutcomeKind.FAILED, OutcomeKind.DEAD):
            _count_failure(found, outcome)
        elif outcome.kind is not OutcomeKind.CANCELLED:
            shown[_count_mask(found, outcome)].add(outcome)
        if outcome.kind is OutcomeKind.OK and outcome.stages:
            timed.add(outcome)
            entry = (outcome.seconds, outcome.index, outcome)
            if len(slowest) < SLOWEST:
                heapq.heappush(slowest, entry)
            elif entry > slowest[0]:
                heapq.heapreplace(slowest, entry)
    found.began, found.step, found.timeline = times.steps()
    found.slowest = [outcome for _, _, outcome in sorted(slowest, reverse=True)]
    found.timed = len(timed.items)
    found.latency = list(_latencies(timed.items))
    found.total_latency = _latency("total", [outcome.seconds for outcome in timed.items], 1.0) if timed.items else None
    found.samples = list(_chosen({group: shown[group].items for group in shown}, samples))
    return found


def _count_failure(found: Survey, outcome: Outcome) -> None:
    code = outcome.code or "unknown"
    if code not in found.codes and len(found.codes) >= _CODES:
        code = "other"
    found.codes[code] += 1
    if len(found.examples[code]) < EXAMPLES:
        found.examples[code].append(outcome)


def _count_mask(found: Survey, outcome: Outcome) -> str:
    """The group that it is sampled in: its first flag."""
    if outcome.quality is None:
        return PLAIN
    flags = outcome.quality.flags
    found.assessed += 1
    found.flags.update(flags)
    found.needs_review += outcome.quality.needs_review
    return flags[0] if flags else PLAIN


def _chosen(groups: dict[str, list[Outcome]], count: int) -> Iterator[Outcome]:
    """Half of the room for what needs a look, evenly over its flags; the rest for the others, as far as there are."""
    review = [groups[flag] for flag in FLAGS if flag != "border"]
    others = [groups["border"], groups[PLAIN]]
    wanted, plain = list(_in_turn(review)), list(_in_turn(others))
    room = max(count - len(plain), (count + 1) // 2)
    looked = wanted[:room]
    yield from looked
    yield from plain[: count - len(looked)]


def _in_turn(groups: Sequence[Sequence[Outcome]]) -> Iterator[Outcome]:
    for row in itertools.zip_longest(*groups):
        yield from (outcome for outcome in row if outcome is not None)


def _latencies(outcomes: Sequence[Outcome]) -> Iterator[Latency]:
    everything = sum(sum(outcome.stages.values()) for outcome in outcomes)
    for stage in Stage:
        times = [outcome.stages[stage.value] for outcome in outcomes if stage.value in outcome.stages]
        if times:
            yield _latency(stage.value, times, sum(times) / everything if everything else 0.0)


def _latency(stage: str, times: list[float], share: float) -> Latency:
    times = sorted(times)

    def at(rank: float) -> float:  # nearest rank
        return times[min(len(times) - 1, int(rank * len(times)))]

    return Latency(stage, sum(times) / len(times), at(0.5), at(0.95), at(0.99), share)


class _Timeline:
    """Counts per step of time; neither the first nor the last moment is known, so steps double when they get many."""

    def __init__(self) -> None:
        self._step = 1
        self._counts: Counter[int] = Counter()

    def add(self, at: float) -> None:
        self._counts[int(at) // self._step] += 1
        while len(self._counts) > 1 and max(self._counts) - min(self._counts) >= TIMELINE_BINS:
            coarser: Counter[int] = Counter()
            for number, count in self._counts.items():
                coarser[number // 2] += count
            self._counts, self._step = coarser, 2 * self._step

    def steps(self) -> tuple[float, float, list[int]]:
        """Unix seconds of the first step, seconds of a step, counts."""
        if not self._counts:
            return 0.0, 1.0, []
        first, last = min(self._counts), max(self._counts)
        return float(first * self._step), float(self._step), [self._counts[n] for n in range(first, last + 1)]
