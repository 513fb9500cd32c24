"""Read the outcomes of a job once, in constant memory: counts, times, and samples to show."""

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
"""Largest number of time steps in the throughput chart."""

_EXAMPLES = 5
"""Failures shown for each error code."""

_SLOWEST = 10
"""Images in the list of the slowest."""

_TIMED = 20_000
"""Images in the percentiles. A larger job gives a uniform sample; the rank error is then under 1 %."""

_CODES = 100
"""Error codes counted separately; the others are counted as `other`."""

_PLAIN = "plain"
"""Group of the masks without a flag."""

Item = TypeVar("Item")


class Reservoir(Generic[Item]):
    """A uniform sample of a given size from all added items (Vitter's algorithm R)."""

    def __init__(self, size: int, random: random.Random) -> None:
        self._size, self._random = size, random
        self._seen = 0
        self.items: list[Item] = []

    def add(self, item: Item) -> None:
        """Add an item; all items added so far are equally likely to be in the sample."""
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (at := self._random.randrange(self._seen)) < self._size:
            self.items[at] = item


@dataclass(frozen=True)
class Latency:
    """Seconds that images spend in one stage."""

    stage: str
    mean: float
    median: float
    p95: float
    p99: float
    share: float
    """Share of this stage in the time of all stages."""


@dataclass
class Survey:
    """Numbers and samples of a job's outcomes."""

    flags: Counter[str] = field(default_factory=Counter)
    needs_review: int = 0
    assessed: int = 0
    """Masks with quality numbers; images that were up to date have none."""

    codes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    timeline: list[int] = field(default_factory=list)
    """Images with an outcome in each time step, starting at `began`."""

    began: float = 0.0
    """Start of the timeline in Unix seconds."""

    step: float = 1.0
    """Length of a time step in seconds."""

    latency: list[Latency] = field(default_factory=list)
    total_latency: Latency | None = None
    timed: int = 0
    """Images in the percentiles."""

    slowest: list[Outcome] = field(default_factory=list)
    samples: list[Outcome] = field(default_factory=list)
    """Images to show; those that need review come first."""


def survey(outcomes: Iterable[Outcome], *, samples: int, seed: str) -> Survey:
    """Return the survey of a job's outcomes, reading them once.

    Args:
        outcomes: each image once, in any order.
        samples: largest number of images to show.
        seed: the same outcomes with the same seed give the same samples.
    """
    found, chance = Survey(), random.Random(seed)
    groups = {group: Reservoir[Outcome](samples, chance) for group in (*FLAGS, _PLAIN)}
    timed = Reservoir[Outcome](_TIMED, chance)
    slowest, timeline = _Slowest(), _Timeline()
    for outcome in outcomes:
        if outcome.at is not None:
            timeline.add(outcome.at)
        if outcome.kind in (OutcomeKind.FAILED, OutcomeKind.DEAD):
            _count_failure(found, outcome)
        elif outcome.kind is not OutcomeKind.CANCELLED:
            groups[_count_mask(found, outcome)].add(outcome)
        if outcome.kind is OutcomeKind.OK and outcome.stages:
            timed.add(outcome)
            slowest.add(outcome)
    found.began, found.step, found.timeline = timeline.steps()
    found.slowest = slowest.outcomes()
    found.timed = len(timed.items)
    found.latency = list(_latencies(timed.items))
    found.total_latency = _latency("total", [outcome.seconds for outcome in timed.items], 1.0) if timed.items else None
    found.samples = list(_choose_samples({group: groups[group].items for group in groups}, samples))
    return found


def _count_failure(found: Survey, outcome: Outcome) -> None:
    code = outcome.code or "unknown"
    if code not in found.codes and len(found.codes) >= _CODES:
        code = "other"
    found.codes[code] += 1
    if len(found.examples[code]) < _EXAMPLES:
        found.examples[code].append(outcome)


def _count_mask(found: Survey, outcome: Outcome) -> str:
    """Count a mask and return the group to sample it in: its first flag, or `plain`."""
    if outcome.quality is None:
        return _PLAIN
    flags = outcome.quality.flags
    found.assessed += 1
    found.flags.update(flags)
    found.needs_review += outcome.quality.needs_review
    return flags[0] if flags else _PLAIN


def _choose_samples(groups: dict[str, list[Outcome]], count: int) -> Iterator[Outcome]:
    """Yield at most `count` samples: first masks that need review, evenly over their flags, then others.

    Each of the two gets half of the room; what one does not use goes to the other.
    """
    review = list(_interleave([groups[flag] for flag in FLAGS if flag != "border"]))
    others = list(_interleave([groups["border"], groups[_PLAIN]]))
    shown_review = review[: max(count - len(others), (count + 1) // 2)]
    yield from shown_review
    yield from others[: count - len(shown_review)]


def _interleave(groups: Sequence[Sequence[Outcome]]) -> Iterator[Outcome]:
    for row in itertools.zip_longest(*groups):
        yield from (outcome for outcome in row if outcome is not None)


def _latencies(outcomes: Sequence[Outcome]) -> Iterator[Latency]:
    total = sum(sum(outcome.stages.values()) for outcome in outcomes)
    for stage in Stage:
        times = [outcome.stages[stage.value] for outcome in outcomes if stage.value in outcome.stages]
        if times:
            yield _latency(stage.value, times, sum(times) / total if total else 0.0)


def _latency(stage: str, times: list[float], share: float) -> Latency:
    times = sorted(times)

    def quantile(rank: float) -> float:  # nearest rank
        return times[min(len(times) - 1, int(rank * len(times)))]

    return Latency(stage, sum(times) / len(times), quantile(0.5), quantile(0.95), quantile(0.99), share)


class _Slowest:
    """The slowest images so far."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Outcome]] = []

    def add(self, outcome: Outcome) -> None:
        entry = (outcome.seconds, outcome.index, outcome)
        if len(self._heap) < _SLOWEST:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def outcomes(self) -> list[Outcome]:
        """Return the slowest images, slowest first."""
        return [outcome for _, _, outcome in sorted(self._heap, reverse=True)]


class _Timeline:
    """Counts of outcomes per time step.

    The start and end of the job are not known in advance, so steps of 1 s double in length when there are too many.
    """

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
        """Return the start of the first step in Unix seconds, the length of a step in seconds, and the counts."""
        if not self._counts:
            return 0.0, 1.0, []
        first, last = min(self._counts), max(self._counts)
        return float(first * self._step), float(self._step), [self._counts[n] for n in range(first, last + 1)]
