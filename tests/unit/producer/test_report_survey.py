from __future__ import annotations

import tracemalloc

import pytest

from producer.report import charts
from producer.report.survey import TIMELINE_BINS, survey
from worker.contract.messages import MaskQuality, Outcome, OutcomeKind

PLAIN = {"coverage": 0.4, "soft": 0.1, "empty": False, "full": False, "touches_border": False}
KINDS = {"plain": {}, "border": {"touches_border": True}, "empty": {"empty": True}, "soft": {"soft": 0.9}}


def outcome(index: int, kind: str = "plain", seconds: float = 1.0, at: float | None = None) -> Outcome:
    return Outcome(
        index=index,
        key=f"{index}.jpg",
        kind=OutcomeKind.OK,
        seconds=seconds,
        stages={"fetch": seconds / 4, "infer": 3 * seconds / 4},
        quality=MaskQuality(**PLAIN | KINDS[kind]),
        at=at,
    )


def failure(index: int, code: str) -> Outcome:
    return Outcome(index=index, key=f"{index}.jpg", kind=OutcomeKind.FAILED, code=code, message="why")


def test_masks_that_need_review_are_counted_and_come_first():
    kinds = ["plain"] * 50 + ["border"] * 30 + ["empty"] * 20 + ["soft"] * 3
    found = survey([outcome(index, kind) for index, kind in enumerate(kinds)], samples=12, seed="job")

    assert (found.needs_review, found.flags) == (23, {"border": 30, "empty": 20, "soft": 3})
    flags = [sample.quality.flags for sample in found.samples]
    assert len(flags) == 12
    assert flags[:6].count(("empty",)) == flags[:6].count(("soft",)) == 3
    assert set(flags[6:]) == {("border",), ()}


@pytest.mark.parametrize("samples", [0, 1, 7, 100])
def test_samples_that_one_group_does_not_use_go_to_the_other(samples):
    few = survey([outcome(0, "empty"), *(outcome(i) for i in range(1, 40))], samples=samples, seed="job")
    many = survey([outcome(0), *(outcome(i, "soft") for i in range(1, 40))], samples=samples, seed="job")

    assert len(few.samples) == len(many.samples) == min(samples, 40)
    assert len({sample.index for sample in many.samples}) == len(many.samples)


def test_the_same_job_gives_the_same_samples():
    outcomes = [outcome(index) for index in range(1000)]

    one, two, other = (survey(outcomes, samples=5, seed=seed).samples for seed in ("a", "a", "b"))
    assert one == two != other


def test_failures_are_counted_by_code_with_a_few_examples():
    found = survey([*(failure(i, "undecodable") for i in range(9)), failure(9, "")], samples=5, seed="job")

    assert found.codes == {"undecodable": 9, "unknown": 1}
    assert [len(found.examples[code]) for code in ("undecodable", "unknown")] == [5, 1]
    assert not found.samples


def test_times_by_stage():
    found = survey([outcome(index, seconds=index / 100) for index in range(1, 101)], samples=0, seed="job")

    fetch, infer = found.latency
    assert (fetch.stage, infer.stage) == ("fetch", "infer")
    assert (fetch.share, infer.share) == pytest.approx((0.25, 0.75))
    total = found.total_latency
    assert (total.mean, total.median, total.p95, total.p99) == pytest.approx((0.505, 0.51, 0.96, 1.0))
    assert [slow.index for slow in found.slowest] == list(range(100, 90, -1))


@pytest.mark.parametrize("seconds", [1, 90, 3600, 3_000_000])
def test_the_timeline_has_a_bounded_number_of_steps(seconds):
    times = [1_000_000 + number * seconds / 999 for number in range(1000)]
    found = survey([outcome(index, at=at) for index, at in enumerate(reversed(times))], samples=0, seed="job")

    assert sum(found.timeline) == 1000
    assert len(found.timeline) <= TIMELINE_BINS + 1
    assert found.began <= 1_000_000 < found.began + found.step
    chart = charts.throughput(found.timeline, found.step)
    assert all(bar.height <= charts.HEIGHT - charts.BOTTOM + 1e-6 for bar in chart.bars)


def test_a_job_without_outcomes():
    found = survey([], samples=5, seed="job")

    assert (found.timeline, found.latency, found.samples, found.total_latency) == ([], [], [], None)


def test_memory_does_not_grow_with_the_job(monkeypatch):
    monkeypatch.setattr("producer.report.survey._TIMED", 100)

    def peak(count: int) -> int:
        tracemalloc.start()
        survey((outcome(index, "soft", at=float(index)) for index in range(count)), samples=5, seed="job")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(6000) < peak(1000) + 300_000  # kept, 5,000 outcomes would take 5 MB


@pytest.mark.parametrize(("value", "above"), [(0.7, 1), (1, 1), (1.1, 2), (2.2, 2.5), (260, 500), (0.0011, 0.002)])
def test_axes_end_at_round_numbers(value, above):
    assert charts.round_up(value) == pytest.approx(above)
