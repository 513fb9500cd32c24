"""How a run divides its pictures, what it deletes of its copies, and how it sums up its jobs."""

from __future__ import annotations

import pytest

from producer.sources.item import Item
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions
from worker.contract.s3url import S3Url
from worker.umbrella import folder_run
from worker.umbrella.folder_run import _batches, _is_list
from worker.umbrella.report import merged


def items(count: int, size: int = 1) -> list[Item]:
    return [Item(f"{number}.jpg", size, "", 0.0) for number in range(count)]


def test_the_first_batch_is_small_so_that_outputs_come_at_once():
    assert [len(batch) for batch in _batches(items(700))] == [32, 256, 256, 156]
    assert [item for batch in _batches(items(700)) for item in batch] == items(700)
    assert not list(_batches([]))


def test_a_batch_has_a_limited_size_and_at_least_one_picture(monkeypatch):
    monkeypatch.setattr(folder_run, "_BATCH_BYTES", 100)

    assert [len(batch) for batch in _batches(items(5, size=40))] == [2, 2, 1]
    assert [len(batch) for batch in _batches(items(2, size=400))] == [1, 1]


@pytest.mark.parametrize(
    ("key", "stays"),
    [
        ("run/1/shoes/a.png", False),
        ("run/1/_maskmill/uploads/photos-12/a.jpg", False),
        ("run/1/_maskmill/backgrounds/12.jpg", False),
        ("run/1/shoes/_maskmill/a.png", False),
        ("run/1/_maskmill/20260131-120000-a1b2c3/manifest.json", True),
        ("run/1/_maskmill/20260131-120000-a1b2c3/results/0000-1.jsonl.gz", True),
    ],
)
def test_pictures_and_outputs_are_deleted_and_lists_stay(key, stays):
    assert _is_list(key) is stays


def view(number: int, **fields) -> JobView:
    place = S3Url("maskmill", f"cut/run/{number}/")
    options = JobOptions(source=place / "in/", dest=place)
    return JobView(job=f"job-{number}", status=JobStatus.FINISHED, options=options, created_at=1.0, **fields)


def test_the_jobs_of_a_run_are_summed_up():
    one = view(1, total=3, ok=2, failed=1, started_at=10.0, completed_at=20.0, finished_at=21.0, codes={"empty": 1})
    two = view(2, total=5, ok=4, failed=1, started_at=15.0, completed_at=40.0, finished_at=41.0, codes={"empty": 1})

    both = merged([one, two])

    assert (both.total, both.ok, both.failed, both.codes) == (8, 6, 2, {"empty": 2})
    assert (both.started_at, both.completed_at, both.finished_at) == (10.0, 40.0, 41.0)
