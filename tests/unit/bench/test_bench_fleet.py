from __future__ import annotations

import pytest

from worker.bench import fleet, fleet_report, scale
from worker.bench.harness import usage


def simulation(nodes: int, *, carried: bool = True, redis: float = 0.1, steward: float = 0.02) -> dict:
    return {
        "nodes": nodes,
        "processes": nodes,
        "simulated": True,
        "carried": carried,
        "images_per_second": nodes * 10.0,
        "redis_cores": redis,
        "steward_cores": steward,
        "redis_commands_per_image": 13.0,
        "call_ms": [0.4, 1.2],
        "lag_seconds": 0.1 if carried else 9.0,
        "connections": nodes * 14,
    }


def report() -> dict:
    options = fleet.Options()
    seen = [simulation(1, redis=0.01), simulation(100, redis=0.1), simulation(120, carried=False, redis=0.9)]
    costs = fleet._costs(seen)
    return {
        "machine": {"cpu": "CPU"},
        "node": {"processes": 1, "images_per_second": 10.0, "chunk_images": 250},
        "load_average_before": 0.1,
        "load_average_after": 1.0,
        "fleets": [*seen[:2], fleet._predict(options, 1000, costs)],
        "simulations": seen,
        "costs": costs,
        "carries": fleet._carries(options, costs),
    }


def test_costs_come_from_the_largest_fleet_that_was_carried():
    costs = report()["costs"]

    assert costs["from_nodes"] == 100
    assert costs["redis_us_per_image"] == pytest.approx(100)
    assert costs["steward_us_per_image"] == pytest.approx(20)


def test_a_larger_fleet_is_predicted_from_them():
    predicted = report()["fleets"][-1]

    assert not predicted["simulated"]
    assert (predicted["images_per_second"], predicted["redis_cores"]) == (10_000, pytest.approx(1.0))


def test_what_ends_first_is_named_with_its_remedy():
    found = report()

    assert found["carries"]["images_per_second"]["redis"] == 8000
    assert found["carries"]["nodes"]["connections"] == fleet.MAX_CLIENTS // 15
    assert found["carries"]["first"] == "connections"
    assert "maxclients" in fleet_report.remarks(found)[-1]
    assert fleet_report.rows(found)[-1][-1] == "predicted"
    assert fleet_report.readme_line(found).count("|") == fleet_report.README_HEADINGS.splitlines()[0].count("|")


def test_the_plot_is_written(tmp_path):
    assert fleet_report.draw(report(), tmp_path / "fleet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sets", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_scale_goes_up_in_doubles_and_ends_with_all(sets, expected):
    assert scale.counts(sets) == expected


def test_usage_tells_this_process_from_others():
    import os

    before = usage.usage(None, [os.getpid()])
    sum(number * number for number in range(300_000))
    spent = usage.usage(None, [os.getpid()]) - before

    assert 0 < spent.services < 5 and spent.workers == 0
    assert os.getpid() in usage.tree(os.getppid())
    assert usage.memory_mib(os.getpid())[0] > 10 and usage.handles(os.getpid()) > 2 and usage.threads(os.getpid()) >= 1
