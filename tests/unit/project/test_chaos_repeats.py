"""The cause of a read that was repeated: the fault of the process that had read the input before."""

from __future__ import annotations

import pytest

from chaos import account, repeats
from chaos.inject import Injected
from chaos.load import Job
from chaos.s3_log import Request
from chaos.watch import Recovery
from worker.contract.s3url import S3Url

JOB = Job(0, 24, S3Url("b", "in/0000/"), S3Url("b", "out/0000/"), "whole")
INPUT, OUTPUT = "/b/in/0000/0007.jpg", "/b/out/0000/0007.png"
MODEL_PROCESS, CONSUMER = 12, 11
FIRST = frozenset({MODEL_PROCESS, CONSUMER, 10})
SECOND = frozenset({22, 21, 20})


def request(
    at: float, pids: frozenset[int], *, path: str = INPUT, method: str = "GET", host: str = "node-a", trouble: str = ""
) -> Request:
    return Request(at, method, path, host, pids, trouble)


def fault(at: float, kind: str, *, victim: str = "", pid: int | None = None, seconds: float | None = None) -> Injected:
    return Injected(at, kind, victim, pid, 0, True, Recovery(kind, at), paused_seconds=seconds)


def causes(log: list[Request], *faults: Injected, job: Job = JOB) -> list[str]:
    reads, _ = repeats.find(log, [job], faults)
    return [read.cause for read in reads]


TWICE = [request(10, FIRST), request(20, SECOND)]


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ([fault(12, "model_process-sigkill", pid=MODEL_PROCESS)], "model_process-sigkill"),
        ([fault(12, "consumer-sigkill", pid=CONSUMER)], "consumer-sigkill"),
        ([fault(9, "consumer-pause", pid=CONSUMER, seconds=5)], "consumer-pause"),
        ([fault(9, "consumer-sigkill", pid=CONSUMER)], repeats.NO_FAULT),
        ([fault(12, "consumer-sigkill", pid=21)], repeats.NO_FAULT),
        ([fault(9, "network-cut", victim="node-a", seconds=5)], "network-cut"),
        ([fault(9, "network-cut", victim="node-b", seconds=5)], repeats.NO_FAULT),
        ([fault(5, "failover-kill")], "failover-kill"),
        ([fault(12, "failover-kill"), fault(13, "consumer-sigkill", pid=CONSUMER)], "consumer-sigkill"),
        ([fault(12, "clock-node"), fault(11, "failover-kill")], "failover-kill"),
        ([fault(21, "failover-kill")], repeats.NO_FAULT),
    ],
)
def test_the_fault_nearest_to_the_first_read_is_the_cause(faults, cause):
    assert causes(TWICE, *faults) == [cause]


def test_trouble_of_s3_counts_for_the_process_that_had_it():
    trouble = [request(12, FIRST, trouble="hang"), request(12, SECOND, trouble="busy")]

    assert causes([*TWICE, *trouble], fault(11, "failover-kill")) == ["s3-hang"]


def test_a_job_that_was_paused_needs_no_fault():
    paused = Job(0, 24, JOB.source, JOB.dest, "paused", actions=["pause", "resume"])

    assert causes(TWICE, job=paused) == [repeats.PAUSED]


def test_outputs_that_existed_and_were_made_again_are_counted():
    faults = [fault(12, "consumer-sigkill", pid=CONSUMER), fault(31, "failover-kill")]
    writes = [request(at, pids, path=OUTPUT, method="PUT") for at, pids in ((11, FIRST), (21, SECOND), (35, SECOND))]

    found = repeats.find([*TWICE, *writes], [JOB], faults)
    rows = repeats.table(*found, faults)

    by_kind = {row["kind"]: row for row in rows}
    assert by_kind["consumer-sigkill"] == {
        "kind": "consumer-sigkill",
        "times": 1,
        "read_again": 1,
        "per_fault": 1.0,
        "output_existed": 1,
        "written_again": 1,
        "made_again": 1,
    }
    assert (by_kind["failover-kill"]["written_again"], by_kind["failover-kill"]["made_again"]) == (1, 0)
    assert repeats.per_kill(rows, {"consumer-sigkill", "failover-kill"}) == (1, 1)
    assert list(account._made_again(rows)) == ["1 outputs existed and were made again: consumer-sigkill"]
    [(output, story)] = repeats.stories(found[1], [*TWICE, *writes]).items()
    assert output == OUTPUT
    assert [line.split()[1] for line in story] == ["GET", "GET", "PUT", "PUT", "PUT"]


def test_a_worker_that_was_away_may_write_late():
    faults = [fault(12, "consumer-pause", pid=CONSUMER, seconds=5)]
    reads = [request(10, FIRST), request(14, SECOND)]
    writes = [request(at, pids, path=OUTPUT, method="PUT") for at, pids in ((18, FIRST), (21, SECOND))]

    rows = repeats.table(*repeats.find([*reads, *writes], [JOB], faults), faults)

    paused = next(row for row in rows if row["kind"] == "consumer-pause")
    assert (paused["written_again"], paused["made_again"]) == (1, 0)
    assert list(account._made_again(rows)) == []


@pytest.mark.parametrize(("pid", "made_again"), [(CONSUMER, 1), (21, 0)])
def test_a_worker_that_was_away_goes_on_with_the_next_image(pid, made_again):
    """The second process had the chunk first, was paused, and looks for no outputs when it wakes."""
    faults = [fault(5, "model_process-pause", pid=pid, seconds=14)]
    writes = [request(at, pids, path=OUTPUT, method="PUT") for at, pids in ((18, FIRST), (21, SECOND))]

    rows = repeats.table(*repeats.find([*TWICE, *writes], [JOB], faults), faults)

    assert sum(row["made_again"] for row in rows) == made_again


def test_an_output_that_came_between_the_look_and_the_read_was_not_needless():
    faults = [fault(5, "consumer-pause", pid=CONSUMER, seconds=15)]
    looked = request(19.5, SECOND, path=OUTPUT, method="HEAD")
    writes = [request(at, pids, path=OUTPUT, method="PUT") for at, pids in ((19.8, FIRST), (21, SECOND))]

    counts = [
        sum(row["made_again"] for row in repeats.table(*repeats.find([*TWICE, *log], [JOB], faults), faults))
        for log in (writes, [*writes, looked])
    ]

    assert counts == [1, 0]
