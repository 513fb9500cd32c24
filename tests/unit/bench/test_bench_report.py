"""From samples to ratios, rows and files."""

from __future__ import annotations

import json

import pytest

from unit.bench.bench_samples import measured
from worker.bench.report import (
    HEADINGS,
    README_HEADINGS,
    NotRun,
    check_writable,
    readme_line,
    remarks,
    result,
    rows,
    write_json,
)
from worker.contract.errors import SetupError

HEAD = {"size": 512, "streams": 1, "threads": 2, "rounds": 2, "load_average_before": 0.1, "load_average_after": 2.0}
PLAIN = measured("plain conversion f32", "plain", 2.0, 4.0)
OURS = measured("maskmill fp32", "ours", 1.0, 2.5, cpu=0.8)
CHECK = measured("benchmark_app on maskmill fp32", "check", 0.8, 2.5, engine="benchmark_app")
TORCH = measured("PyTorch eager", "other", 5.0, 6.0, engine="pytorch")
MACHINE = {"cpu": "Testchip", "isa_words": "AVX2, no VNNI, no bf16"}


def contender(found: dict, label: str) -> dict:
    return next(row for row in found["contenders"] if row["label"] == label)


def report(found: dict) -> dict:
    return {"machine": MACHINE, "float_arithmetic": "f32", "weights": "random", "results": [HEAD | found]}


def test_ratios_are_to_the_plain_network():
    row = contender(result([PLAIN, OURS], [], threads=2), "maskmill fp32")

    assert row["speedup"] == 2.0
    assert row["speedup_paired"] == pytest.approx((2.0 + 1.6) / 2)
    assert row["speedup_cpu"] == 1.25
    assert row["images_per_second_per_core"] == 0.5
    assert (row["best_seconds"], row["median_seconds"], row["n"]) == (1.0, 1.75, 2)


def test_bf16_is_also_compared_in_its_own_arithmetic():
    plain = measured("plain conversion bf16", "plain", 1.0, 2.0, arithmetic="bf16")
    ours = measured("maskmill fp32 in bf16", "ours", 0.8, 1.6, arithmetic="bf16")

    row = contender(result([PLAIN, plain, ours], [], threads=2), "maskmill fp32 in bf16")

    assert row["speedup"] == 2.5
    assert row["speedup_same_arithmetic"] == 1.25


def test_the_engine_is_held_against_benchmark_app():
    row = contender(result([PLAIN, OURS, CHECK], [], threads=2), CHECK.label)

    assert row["engine_over_benchmark_app"] == {"best": 1.25, "paired": pytest.approx((1.25 + 1.0) / 2), "cpu": 0.8}


def test_every_sample_is_kept():
    row = contender(result([PLAIN], [], threads=1), PLAIN.label)

    assert row["samples"] == [
        {"images": 2, "wall_seconds": 4.0, "cpu_seconds": 2.0},
        {"images": 2, "wall_seconds": 8.0, "cpu_seconds": 2.0},
    ]


def test_without_the_plain_network_there_is_no_comparison():
    with pytest.raises(SetupError, match="plain conversion f32: killed"):
        result([OURS], [NotRun("plain conversion f32", "killed")], threads=2)


def test_a_row_has_a_cell_for_each_heading():
    found = result([PLAIN, OURS, CHECK, TORCH], [], threads=2)

    assert all(len(row) == len(HEADINGS) for row in rows(found))
    assert rows(found)[1] == ("maskmill fp32", "1.000", "1.750", "2", "0.500", "0.800", "512", "2.00", "1.80", "1.25")


def test_the_readme_line_names_the_cpu_and_both_ratios():
    found = result([PLAIN, OURS, TORCH], [], threads=2)

    line = readme_line(report(found), HEAD | found)

    assert line == "| Testchip (AVX2, no VNNI, no bf16) | 512 | 1 x 2 | maskmill fp32 | 1.000 | 0.500 | 2.00 | 5.0 |"
    assert line.count("|") == README_HEADINGS.count("|")


def test_a_ratio_to_what_did_not_run_is_a_dash():
    found = result([PLAIN, OURS], [NotRun("PyTorch eager", "not installed: torch")], threads=2)

    assert readme_line(report(found), HEAD | found).endswith("| - |")


def test_what_did_not_run_and_what_it_ran_on_is_said():
    found = result([PLAIN, OURS, CHECK], [NotRun("PyTorch eager", "not installed: torch")], threads=2)

    text = "\n".join(remarks(report(found)))

    assert "AVX2, no VNNI, no bf16" in text
    assert "PyTorch eager: not installed: torch" in text
    assert "1.250 x the time of benchmark_app" in text


def test_the_report_is_read_back_as_written(tmp_path):
    found = report(result([PLAIN], [], threads=2))

    path = write_json(found, tmp_path / "new" / "folder")

    assert json.loads(path.read_text("utf-8")) == found
    assert [p.name for p in path.parent.iterdir()] == ["model.json"]


@pytest.mark.parametrize("write", [check_writable, lambda folder: write_json({}, folder)])
def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path, write):
    (tmp_path / "file").write_text("")

    with pytest.raises(SetupError, match="--output"):
        write(tmp_path / "file")
