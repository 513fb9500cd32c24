"""From timings to ratios, tables and files."""

from __future__ import annotations

import json

import pytest

from unit.bench.bench_timings import timed
from worker.bench.model_report import ModelReport, compare
from worker.bench.report import Table, check_writable, write_json
from worker.contract.errors import SetupError

HEAD = {"size": 512, "streams": 1, "threads": 2, "rounds": 2, "load_average_before": 0.1, "load_average_after": 2.0}
PLAIN = timed("plain conversion f32", "plain", 2.0, 4.0)
OURS = timed("maskmill fp32", "ours", 1.0, 2.5, cpu=0.8)
CHECK = timed("benchmark_app on maskmill fp32", "check", 0.8, 2.5, engine="benchmark_app")
TORCH = timed("PyTorch eager", "other", 5.0, 6.0, engine="pytorch")
MACHINE = {"cpu": "Testchip", "isa_words": "AVX2, no VNNI, no bf16"}


def contender(found: dict, label: str) -> dict:
    return next(row for row in found["contenders"] if row["label"] == label)


def report(found: dict) -> ModelReport:
    return ModelReport(
        {"machine": MACHINE, "float_arithmetic": "f32", "weights": "random", "results": [HEAD | found]},
    )


def test_ratios_are_to_the_plain_network():
    row = contender(compare([PLAIN, OURS], [], threads=2), "maskmill fp32")

    assert row["speedup"] == 2.0
    assert row["speedup_paired"] == pytest.approx((2.0 + 1.6) / 2)
    assert row["speedup_cpu"] == 1.25
    assert row["images_per_second_per_core"] == 0.5
    assert (row["best_seconds"], row["median_seconds"], row["n"]) == (1.0, 1.75, 2)


def test_bf16_is_also_compared_in_its_own_arithmetic():
    plain = timed("plain conversion bf16", "plain", 1.0, 2.0, arithmetic="bf16")
    ours = timed("maskmill fp32 in bf16", "ours", 0.8, 1.6, arithmetic="bf16")

    row = contender(compare([PLAIN, plain, ours], [], threads=2), "maskmill fp32 in bf16")

    assert row["speedup"] == 2.5
    assert row["speedup_same_arithmetic"] == 1.25


def test_the_engine_is_held_against_benchmark_app():
    row = contender(compare([PLAIN, OURS, CHECK], [], threads=2), CHECK.label)

    assert row["engine_over_benchmark_app"] == {"best": 1.25, "paired": pytest.approx((1.25 + 1.0) / 2), "cpu": 0.8}


def test_every_sample_is_kept():
    row = contender(compare([PLAIN], [], threads=1), PLAIN.label)

    assert row["samples"] == [
        {"images": 2, "wall_seconds": 4.0, "cpu_seconds": 2.0},
        {"images": 2, "wall_seconds": 8.0, "cpu_seconds": 2.0},
    ]


def test_without_the_plain_network_there_is_no_comparison():
    with pytest.raises(SetupError, match="plain conversion f32: killed"):
        compare([OURS], [{"label": "plain conversion f32", "reason": "killed"}], threads=2)


def test_a_row_has_a_cell_for_each_heading():
    [table] = report(compare([PLAIN, OURS, CHECK, TORCH], [], threads=2)).tables()

    assert all(len(row) == len(table.headings) for row in table.rows)
    assert table.rows[1] == ("maskmill fp32", "1.000", "1.750", "2", "0.500", "0.800", "512", "2.00", "1.80", "1.25")


def test_the_readme_line_names_the_cpu_and_both_ratios():
    headings, _, line = report(compare([PLAIN, OURS, TORCH], [], threads=2)).readme_table().as_markdown()

    assert line == "| Testchip (AVX2, no VNNI, no bf16) | 512 | 1 x 2 | maskmill fp32 | 1.000 | 0.500 | 2.00 | 5.0 |"
    assert line.count("|") == headings.count("|")


def test_a_table_is_written_in_markdown():
    table = Table(("a", "b"), [("1", "2")], "not shown")

    assert list(table.as_markdown()) == ["| a | b |", "|---|---|", "| 1 | 2 |"]


def test_a_ratio_to_a_contender_that_did_not_run_is_a_dash():
    found = compare([PLAIN, OURS], [{"label": "PyTorch eager", "reason": "not installed: torch"}], threads=2)

    assert report(found).readme_table().rows[0][-1] == "-"


def test_remarks_name_the_machine_and_contenders_that_did_not_run():
    missing = [{"label": "PyTorch eager", "reason": "not installed: torch"}]

    text = "\n".join(report(compare([PLAIN, OURS, CHECK], missing, threads=2)).remarks())

    assert "AVX2, no VNNI, no bf16" in text
    assert "PyTorch eager: not installed: torch" in text
    assert "1.250 x the time of benchmark_app" in text


def test_the_report_is_read_back_as_written(tmp_path):
    document = report(compare([PLAIN], [], threads=2)).document

    path = write_json(document, tmp_path / "new" / "folder" / "model.json")

    assert json.loads(path.read_text("utf-8")) == document
    assert [p.name for p in path.parent.iterdir()] == ["model.json"]


@pytest.mark.parametrize("write", [check_writable, lambda folder: write_json({}, folder / "x.json")])
def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path, write):
    (tmp_path / "file").write_text("")

    with pytest.raises(SetupError, match="--output"):
        write(tmp_path / "file")
