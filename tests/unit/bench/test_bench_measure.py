"""Turns, and the figures computed from them."""

from __future__ import annotations

import pytest

from unit.bench.bench_timings import timings
from worker.bench.harness.measure import TurnTiming, best, least_cpu, median, paired_speedup, rotated, take_turns
from worker.contract.errors import SetupError


class Recorder:
    """Note every turn in a shared diary; raise in turn number `fails_at`."""

    def __init__(self, name: str, diary: list[str], fails_at: int | None = None) -> None:
        self.name, self.diary, self.fails_at, self.turns = name, diary, fails_at, 0

    def turn(self) -> TurnTiming:
        self.turns += 1
        self.diary.append(self.name)
        if self.turns == self.fails_at:
            raise SetupError("out of memory")
        return TurnTiming(1, float(self.turns), 0.5)


def test_best_and_median_are_times_of_one_image():
    taken = timings(3.0, 1.0, 2.0, images=4)

    assert best(taken) == 1.0
    assert median(taken) == 2.0


def test_cpu_time_is_that_of_one_image_in_the_least_disturbed_turn():
    assert least_cpu([TurnTiming(4, 9.0, 8.0), TurnTiming(4, 9.0, 6.0)]) == 1.5


def test_a_paired_speedup_compares_within_rounds():
    # The machine is two times slower in the second round and four times in the third, for both.
    assert paired_speedup(timings(2.0, 4.0, 8.0), timings(1.0, 2.0, 4.0)) == 2.0


def test_unequal_rounds_are_not_paired():
    with pytest.raises(ValueError, match="shorter"):
        paired_speedup(timings(1.0, 2.0), timings(1.0))


@pytest.mark.parametrize(("by", "expected"), [(0, "abc"), (1, "bca"), (3, "abc"), (5, "cab")])
def test_the_order_rotates(by, expected):
    assert "".join(rotated("abc", by)) == expected


def test_an_empty_order_stays_empty():
    assert rotated([], 3) == []


def test_contenders_take_turns_and_none_always_begins():
    diary: list[str] = []
    takers = {name: Recorder(name, diary) for name in "abc"}

    taken = take_turns(takers, 3, on_turn=lambda *_: None, on_failure=lambda *_: None)

    assert "".join(diary) == "abcbcacab"
    assert {name: len(turns) for name, turns in taken.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_contender_that_fails_drops_out_and_the_others_continue():
    diary: list[str] = []
    failed: list[tuple[str, str]] = []
    takers = {"a": Recorder("a", diary), "b": Recorder("b", diary, fails_at=2)}

    taken = take_turns(
        takers, 3, on_turn=lambda *_: None, on_failure=lambda name, error: failed.append((name, str(error)))
    )

    assert list(taken) == ["a"] and len(taken["a"]) == 3
    assert failed == [("b", "out of memory")]
    assert diary.count("b") == 2


def test_each_turn_is_announced():
    announced: list[tuple[int, str]] = []

    take_turns(
        {"a": Recorder("a", [])},
        2,
        on_turn=lambda number, name: announced.append((number, name)),
        on_failure=lambda *_: None,
    )

    assert announced == [(1, "a"), (2, "a")]
