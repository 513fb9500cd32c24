"""A failure of one job is that job's alone; a failure of a service or of this machine is the role's."""

from __future__ import annotations

import itertools

import pytest

from support.log_lines import log_text
from worker.contract.errors import BrokerUnavailable, ContractError, CredentialsRefused, JobUnreadable, ServiceError
from worker.steward import isolation
from worker.steward.isolation import Isolation, passes


def run(subject: Isolation, jobs: str, errors: dict[str, Exception]) -> tuple[list[str], list[str]]:
    """Run over jobs with names of one letter; return those that were tried, and the answers."""
    tried: list[str] = []

    def act(job: str) -> str:
        tried.append(job)
        if job in errors:
            raise errors[job]
        return job.upper()

    return tried, subject.run_all(jobs, act, str)


@pytest.mark.parametrize(
    "error",
    [
        JobUnreadable("b", "broken"),
        ContractError("changed"),
        ServiceError("refused"),
        ValueError("a defect"),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_one_job_reaches_no_other(error, caplog):
    tried, answers = run(Isolation("books"), "abc", {"b": error})

    assert (tried, answers) == (["a", "b", "c"], ["A", "C"])
    assert "event=job_failed role=books job=b" in log_text(caplog)


@pytest.mark.parametrize(
    "error",
    [BrokerUnavailable("away"), CredentialsRefused("wrong key"), OSError(28, "no space"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_no_fault_of_a_job_is_raised_after_all_jobs(error):
    subject, tried = Isolation("books"), []

    def act(job: str) -> None:
        tried.append(job)
        if job == "a":
            raise error

    with pytest.raises(type(error)):
        subject.run_all("abc", act, str)
    assert tried == ["a", "b", "c"]
    assert passes(error) and not subject.failures("a")


def test_a_failing_job_is_left_alone_for_longer_and_longer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(isolation.time, "monotonic", lambda: now[0])
    subject = Isolation("feed")
    tries = []
    for second in range(400):
        now[0] = float(second)
        if run(subject, "a", {"a": ValueError()})[0]:
            tries.append(second)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]

    assert pauses == [2, 4, 8, 16, 32, 64, 120, 120]
    now[0] = 1000.0
    assert run(subject, "a", {}) == (["a"], ["A"])
    assert subject.failures("a") == 0


def test_the_memory_of_failures_is_bounded(monkeypatch):
    monkeypatch.setattr(isolation, "_MAX_FAILING", 3)
    subject = Isolation("feed")

    run(subject, "abcdef", {job: ValueError() for job in "abcdef"})

    assert [job for job in "abcdef" if subject.failures(job)] == ["d", "e", "f"]
