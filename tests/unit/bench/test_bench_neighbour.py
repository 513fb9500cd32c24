"""`worker bench neighbour`: arithmetic and report, without a system under test."""

from __future__ import annotations

from worker.bench.neighbour_report import Beside, NeighbourReport


def row(neighbour: str, fair: float, alone: float, beside: float) -> Beside:
    return {
        "neighbour": neighbour,
        "fair": fair,
        "alone_seconds": alone,
        "beside_seconds": beside,
        "neighbour_images": 1500,
        "redis_mib": 2.5,
        "steward_peak_mib": 80.0 + beside,
    }


def test_a_row_has_the_median_ratio_and_the_largest_memory(tmp_path):
    rows = [row("failing", 2.0, 10.0, seconds) for seconds in (18.0, 22.0, 90.0)] + [row("paused", 1.0, 10.0, 11.0)]
    report = NeighbourReport(
        {
            "schema_version": 1,
            "benchmark": "neighbour",
            "machine": {},
            "load_average_before": 1.0,
            "load_average_after": 2.0,
            "images": 100,
            "rows": rows,
        }
    )

    [table] = report.tables()

    assert table.rows == [
        ("failing", "10.0", "22.0", "20.0", "1.10", "1,500", "2.5", "170"),
        ("paused", "10.0", "11.0", "10.0", "1.10", "1,500", "2.5", "91"),
    ]
    assert report.draw(tmp_path / "neighbour.png").stat().st_size > 5_000
