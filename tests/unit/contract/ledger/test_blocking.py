"""Jobs that could write the same outputs run one after the other."""

from __future__ import annotations

import pytest

from support.jobs import active
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import blocker, overlapping, unblocked
from worker.contract.s3url import S3Url


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
