"""Jobs that could write the same outputs run one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.jobs import active
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import blocker, overlapping, unblocked
from worker.contract.s3url import S3Url

RUNNING = JobStatus.RUNNING


@pytest.mark.parametrize(
    ("one", "two", "overlap"),
    [
        ("s3://b/out/", "s3://b/out/", True),
        ("s3://b/out/", "s3://b/out/deeper/", True),
        ("s3://b/", "s3://b/out/", True),
        ("s3://b/out", "s3://b/out/", True),
        ("s3://b/out/", "s3://b/output/", False),
        ("s3://b/out/", "s3://c/out/", False),
        ("s3://b/one/", "s3://b/two/", False),
    ],
)
def test_destinations_overlap_when_one_lies_in_the_other(one, two, overlap):
    first, second = S3Url.folder(one), S3Url.folder(two)

    assert overlapping(first, second) == overlapping(second, first) == overlap


def test_the_first_job_runs_first_and_independent_jobs_run_beside_it():
    jobs = [
        active("first", dest="s3://b/out/"),
        active("beside", dest="s3://b/other/"),
        active("second", dest="s3://b/out/deeper/"),
        active("third", dest="s3://b/"),
    ]

    assert [job.view.job for job in unblocked(jobs)] == ["first", "beside"]
    assert [getattr(blocker(job.view, jobs), "job", None) for job in jobs] == [None, None, "first", "first"]


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.RUNNING])
def test_a_job_that_is_not_running_gets_nothing_and_still_blocks(status):
    jobs = [active("first", dest="s3://b/out/", status=status), active("second", dest="s3://b/out/")]

    assert unblocked(jobs) == []


def test_a_job_that_is_not_among_the_active_ones_waits_for_all():
    assert blocker(active("new", dest="s3://b/out/").view, [active("old", dest="s3://b/")]).job == "old"
    assert blocker(active("new", dest="s3://b/out/").view, []) is None


@given(st.lists(st.tuples(st.sampled_from(["b", "c"]), st.text("ab/", max_size=5)), max_size=12))
def test_all_at_once_the_jobs_that_wait_are_those_found_one_by_one(places):
    """`unblocked` sorts the destinations in place of comparing all pairs."""
    jobs = [
        active(f"job{number}", dest=f"s3://{bucket}/{key}", status=JobStatus.PAUSED if number % 5 == 4 else RUNNING)
        for number, (bucket, key) in enumerate(places)
    ]

    found = unblocked(jobs)

    assert found == [job for job in jobs if job.view.status is RUNNING and blocker(job.view, jobs) is None]
