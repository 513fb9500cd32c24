"""Descriptions of live workers, and shares of stages."""

from __future__ import annotations

import pytest

from producer.live import describe_workers, time_shares, without_worker
from worker.contract.ledger.fleet import StartFailure, WorkerFacts


def worker(name: str, cores: int, **how: object) -> WorkerFacts:
    facts = {"streams": 2, "threads": cores, "model": "birefnet_lite", "size": 1024, "precision": "int8"} | how
    return WorkerFacts(name=name, cpus=tuple(range(cores)), **facts)


def test_shares_are_of_the_time_spent_with_the_largest_first():
    assert list(time_shares([{"fetch": 1.0, "infer": 2.0}, {"infer": 1.0}]).items()) == [
        ("infer", 0.75),
        ("fetch", 0.25),
    ]


@pytest.mark.parametrize("stages", [[], [{}], [{"infer": 0.0}]])
def test_there_are_no_shares_without_times(stages):
    assert time_shares(stages) == {}


def test_workers_of_a_kind_are_grouped():
    text = describe_workers([worker("a", 8), worker("b", 8), worker("c", 4, size=512)])

    assert text == (
        "3 live workers: 2 on 8 cores with birefnet_lite 1024 int8 (2 x 4); "
        "1 on 4 cores with birefnet_lite 512 int8 (2 x 2)"
    )
    assert describe_workers([worker("a", 8)]).startswith("1 live worker: ")


def test_no_worker_gives_the_reason_or_the_remedy():
    failure = StartFailure(node="n1", reason="no bundle at /models", at=1_700_000_000.0)

    assert describe_workers([]) == ""
    assert without_worker(None) == "no live worker: start workers on a node with `worker start`"
    assert without_worker(None, loading=2) == "no live worker yet: 2 loading the model"
    assert without_worker(failure, loading=2) == (
        "no live worker; last reason: no bundle at /models (node n1, 2023-11-14T22:13:20.000Z)"
    )
