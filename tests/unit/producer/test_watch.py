from __future__ import annotations

import itertools

import pytest

from producer import watch
from support.fakes import Clock
from worker.contract.errors import JobNotFound
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions

OPTIONS = JobOptions(source="s3://a/", dest="s3://b/")


def view(done: int = 0, total: int | None = 100, status: JobStatus = JobStatus.RUNNING, **fields) -> JobView:
    fields = {"ok": done, "chunk_images": 16, "created_at": 0.0} | fields
    return JobView(job="job", status=status, options=OPTIONS, total=total, **fields)


class FakeLedger:
    """Returns the views in order, then the last one for ever."""

    def __init__(self, *views: JobView) -> None:
        self._views = itertools.chain(views, itertools.repeat(views[-1]))

    def view(self, job: str) -> JobView:
        assert job == "job"
        return next(self._views)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


def follow(*views: JobView, interval: float = 1.0, timeout: float | None = None) -> list[watch.JobSnapshot]:
    return list(watch.follow(FakeLedger(*views), "job", interval=interval, timeout=timeout))


@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.CANCELLED])
def test_following_ends_with_the_job(clock, status):
    snapshots = follow(view(0), view(50), view(100, status=status), interval=2.0)

    assert [snapshot.view.done for snapshot in snapshots] == [0, 50, 100]
    assert snapshots[-1].view.ended
    assert clock.slept == [2.0, 2.0]


def test_an_ended_job_gives_one_snapshot_without_waiting(clock):
    assert len(follow(view(100, status=JobStatus.FINISHED))) == 1
    assert clock.slept == []


def test_a_timeout_ends_with_a_last_snapshot_at_that_time(clock):
    snapshots = follow(view(0), interval=4.0, timeout=10.0)

    assert not snapshots[-1].view.ended
    assert clock.slept == [4.0, 4.0, 2.0]
    assert len(snapshots) == 4


def test_a_timeout_of_zero_gives_one_snapshot(clock):
    assert len(follow(view(0), timeout=0.0)) == 1
    assert clock.slept == []


def test_an_unknown_job_raises(monkeypatch):
    ledger = FakeLedger(view())
    monkeypatch.setattr(ledger, "view", lambda job: (_ for _ in ()).throw(JobNotFound("no job")))

    with pytest.raises(JobNotFound):
        list(watch.follow(ledger, "job", interval=1.0))


def test_rate_and_time_left_follow_from_the_history():
    first, second, *_ = follow(view(0), view(10), view(100, status=JobStatus.FINISHED), interval=2.0)

    assert (first.rate, first.eta_seconds) == (None, None)
    assert second.rate == pytest.approx(5.0)
    assert second.eta_seconds == pytest.approx(18.0)


def test_the_rate_leaves_out_images_done_before_following_began():
    first, second, *_ = follow(view(80), view(81), view(100, status=JobStatus.FINISHED))

    assert first.rate is None
    assert second.rate == pytest.approx(1.0)


def test_the_rate_covers_the_last_minute():
    fast = [view(min(10 * i, 600), total=10_000) for i in range(61)]
    slow = [view(600 + i, total=10_000) for i in range(1, 121)]
    end = view(10_000, total=10_000, status=JobStatus.FINISHED)

    snapshots = follow(*fast, *slow, end)

    assert snapshots[60].rate == pytest.approx(10.0)
    assert snapshots[180].rate == pytest.approx(1.0)


def test_a_stalled_job_has_no_rate_and_no_eta():
    snapshots = follow(view(0), *[view(5)] * 70, view(5, status=JobStatus.CANCELLED))

    assert (snapshots[69].rate, snapshots[69].eta_seconds) == (None, None)


def test_long_intervals_give_a_rate_too():
    snapshots = follow(view(0), view(90), view(100, status=JobStatus.FINISHED), interval=90.0)

    assert snapshots[1].rate == pytest.approx(1.0)


def test_there_is_no_eta_while_the_total_is_unknown():
    snapshots = follow(
        view(0, None, JobStatus.LISTING), view(1, None, JobStatus.LISTING), view(1, 1, JobStatus.FINISHED)
    )

    assert snapshots[1].rate == pytest.approx(1.0)
    assert snapshots[1].eta_seconds is None


def test_a_line_for_machines_has_all_counts():
    counts = {"ok": 4, "skipped": 3, "failed": 2, "dead": 1, "cancelled": 5}
    line = watch.JobSnapshot(view(total=20, **counts), rate=3.0).as_dict()

    assert line == {
        "job": "job",
        "status": "running",
        "total": 20,
        "done": 15,
        **counts,
        "images_per_second": 3.0,
        "eta_seconds": 1.7,
    }
    assert watch.JobSnapshot(view(), rate=None).as_dict()["images_per_second"] is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ok": 10, "started_at": 100.0, "finished_at": 105.0}, 2.0),
        ({"ok": 10, "started_at": 900.0}, 0.1),  # still running: until now
        ({"ok": 0, "started_at": 100.0, "finished_at": 105.0}, None),
        ({"ok": 10}, None),
        ({"ok": 10, "started_at": 105.0, "finished_at": 105.0}, None),
    ],
)
def test_the_mean_rate_of_a_job(fields, expected):
    assert watch.mean_rate(view(**fields)) == (None if expected is None else pytest.approx(expected))


def test_a_job_without_progress_says_why_and_the_reason_goes_with_the_next_image(clock):
    asked = []

    def why_waiting(seen: JobView) -> str:
        asked.append((clock.monotonic(), seen.done))
        return "no live worker"

    views = [view(0)] * 9 + [view(1)] * 8 + [view(100, status=JobStatus.FINISHED)]
    found = list(watch.follow(FakeLedger(*views), "job", interval=1.0, why_waiting=why_waiting))

    start = asked[0][0]
    assert [(at - start, done) for at, done in asked] == [(0, 0), (5, 0), (14, 1)]
    assert [bool(snapshot.waiting) for snapshot in found] == [True] * 9 + [False] * 5 + [True] * 3 + [False]
    assert found[0].as_dict()["waiting"] == "no live worker" and "waiting" not in found[-1].as_dict()
