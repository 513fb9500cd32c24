"""`worker bench fleet` and `scale`: arithmetic and report, without a simulation."""

from __future__ import annotations

import os

import pytest

from worker.bench import fleet, scale
from worker.bench.fleet_report import FleetReport
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


def report() -> FleetReport:
    options = fleet.FleetOptions()
    seen = [simulation(1, redis=0.01), simulation(100, redis=0.1), simulation(120, carried=False, redis=0.9)]
    costs = fleet._costs(seen)
    return FleetReport(
        {
            "machine": {"cpu": "CPU"},
            "node": {"processes": 1, "images_per_second": 10.0, "chunk_images": 250},
            "load_average_before": 0.1,
            "load_average_after": 1.0,
            "fleets": [*seen[:2], fleet._predict(options, 1000, costs)],
            "simulations": seen,
            "costs": costs,
            "carries": fleet._carries(options, costs),
        }
    )


def test_costs_come_from_the_largest_fleet_that_kept_up():
    costs = report().document["costs"]

    assert costs["from_nodes"] == 100
    assert costs["redis_us_per_image"] == pytest.approx(100)
    assert costs["steward_us_per_image"] == pytest.approx(20)


def test_a_larger_fleet_is_predicted_from_these_costs():
    predicted = report().document["fleets"][-1]

    assert not predicted["simulated"]
    assert (predicted["images_per_second"], predicted["redis_cores"]) == (10_000, pytest.approx(1.0))


def test_the_first_limit_is_named_with_its_remedy():
    found = report()
    carries, [table], readme = found.document["carries"], found.tables(), found.readme_table()

    assert carries["images_per_second"]["redis"] == 8000
    assert carries["nodes"]["connections"] == fleet.MAX_CLIENTS // 15
    assert carries["first"] == "connections"
    assert "maxclients" in found.remarks()[-1]
    assert table.rows[-1][-1] == "predicted"
    assert len(readme.rows[0]) == len(readme.headings)


def test_the_plot_is_written(tmp_path):
    assert report().draw(tmp_path / "fleet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sets", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_the_number_of_core_sets_doubles_up_to_all(sets, expected):
    assert scale.counts(sets) == expected


def test_usage_counts_this_process_as_a_service():
    before = usage.usage(None, [os.getpid()])
    sum(number * number for number in range(300_000))
    spent = usage.usage(None, [os.getpid()]) - before

    assert 0 < spent.services < 5 and spent.workers == 0
    assert os.getpid() in usage.tree(os.getppid())
    assert usage.handles(os.getpid()) > 2 and usage.threads(os.getpid()) >= 1
