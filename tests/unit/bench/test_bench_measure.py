"""Turns and the numbers made of them."""

from __future__ import annotations

import pytest

from unit.bench.bench_samples import samples
from worker.bench.harness.measure import Sample, best, least_cpu, median, paired_speedup, rotated, take_turns
from worker.contract.errors import SetupError


class Recorder:
    """Notes each of its turns in a shared diary; raises from turn number `fails_at` on."""

    def __init__(self, name: str, diary: list[str], fails_at: int | None = None) -> None:
        self.name, self.diary, self.fails_at, self.turns = name, diary, fails_at, 0

    def turn(self) -> Sample:
        self.turns += 1
        self.diary.append(self.name)
        if self.turns == self.fails_at:
            raise SetupError("out of memory")
        return Sample(1, float(self.turns), 0.5)


def test_best_and_median_are_times_of_one_image():
    taken = samples(3.0, 1.0, 2.0, images=4)

    assert best(taken) == 1.0
    assert median(taken) == 2.0


def test_cpu_time_is_that_of_one_image_in_the_least_disturbed_turn():
    assert least_cpu([Sample(4, 9.0, 8.0), Sample(4, 9.0, 6.0)]) == 1.5


def test_a_paired_speedup_compares_within_rounds():
    # The machine is twice as slow in the second round and four times in the third, for both.
    assert paired_speedup(samples(2.0, 4.0, 8.0), samples(1.0, 2.0, 4.0)) == 2.0


def test_unequal_rounds_are_not_paired():
    with pytest.raises(ValueError, match="shorter"):
        paired_speedup(samples(1.0, 2.0), samples(1.0))


@pytest.mark.parametrize(("by", "expected"), [(0, "abc"), (1, "bca"), (3, "abc"), (5, "cab")])
def test_the_order_moves_on(by, expected):
    assert "".join(rotated("abc", by)) == expected


def test_nobody_to_rotate():
    assert rotated([], 3) == []


def test_contenders_take_turns_and_nobody_always_begins():
    diary: list[str] = []
    runners = {name: Recorder(name, diary) for name in "abc"}

    taken = take_turns(runners, 3, say=lambda *_: None, fail=lambda *_: None)

    assert "".join(diary) == "abcbcacab"
    assert {name: len(turns) for name, turns in taken.items()} == {"a": 3, "b": 3, "c": 3}


def test_one_that_fails_drops_out_and_the_others_go_on():
    diary: list[str] = []
    failed: list[tuple[str, str]] = []
    runners = {"a": Recorder("a", diary), "b": Recorder("b", diary, fails_at=2)}

    taken = take_turns(runners, 3, say=lambda *_: None, fail=lambda name, error: failed.append((name, str(error))))

    assert list(taken) == ["a"] and len(taken["a"]) == 3
    assert failed == [("b", "out of memory")]
    assert diary.count("b") == 2


def test_each_turn_is_announced():
    said: list[tuple[int, str]] = []

    take_turns({"a": Recorder("a", [])}, 2, say=lambda number, name: said.append((number, name)), fail=lambda *_: None)

    assert said == [(1, "a"), (2, "a")]
