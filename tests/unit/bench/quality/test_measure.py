"""Scores of masks that are known, against scores computed by hand; the sheet; the agreement with rembg."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unit.bench.quality.small_exam import inside, write_exam
from worker.bench.quality import exam, measure
from worker.bench.quality.rembg import RembgNetwork, RembgRun
from worker.contract.errors import SourceError
from worker.contract.input_size import InputSize
from worker.contract.settings import LimitSettings
from worker.convert.evaluate.variant_run import RunResult
from worker.model.format.variant import Bundle, Variant

LIMITS = LimitSettings()


def bundle(tmp_path: Path, name: str, source: str = "") -> Bundle:
    xml, weights = tmp_path / f"{name}.xml", tmp_path / f"{name}.bin"
    xml.write_bytes(b"x" * 1000)
    weights.write_bytes(b"x" * 2000)
    return Bundle(
        source or f"/models/{name}",
        Variant(name, InputSize.square(80), "fp32", xml, weights, "d" * 64),
        "",
        license="MIT",
    )


@pytest.fixture
def options(tmp_path, monkeypatch) -> measure.QualityOptions:
    """Two bundles whose masks are known: `exact` is the truth, `shifted` lies 20 columns to the right."""

    def masks(task) -> RunResult:
        task.output.mkdir(parents=True)
        left = {"exact": 20, "shifted": 40}[task.variant.name]
        for index, _ in enumerate(task.pictures):
            np.save(task.output / f"{index}.npy", (inside(left) * 255).astype(np.uint8))
        return RunResult({"inference_precision": "f32", "notes": []}, 0.25, 300)

    monkeypatch.setattr(measure.variant_run, "run", masks)
    found = exam.load(write_exam(tmp_path / "boxes"), "boxes")
    bundles = [bundle(tmp_path, "exact"), bundle(tmp_path, "shifted")]
    return measure.QualityOptions(found, bundles, "f32", (0,), LIMITS, tmp_path / "cache")


def run(options: measure.QualityOptions, tmp_path: Path):
    return measure.run(options, tmp_path / "scratch", lambda _: None)


def test_scores_computed_by_hand(options, tmp_path):
    exact, shifted = run(options, tmp_path).document["networks"]

    assert exact["scores"] == {
        "s_measure": pytest.approx(1),
        "weighted_f": 1.0,
        "e_measure": pytest.approx(1, abs=0.01),
        "mae": 0.0,
        "iou": 1.0,
        "boundary_iou": 1.0,
    }
    assert shifted["scores"]["iou"] == pytest.approx(1 / 3, abs=1e-5)  # 20 of 40 columns shared: 20 / 60
    assert shifted["scores"]["mae"] == pytest.approx(2 * 20 * 40 / (80 * 100))
    # The diagonal is 128, the band 3 pixels: 40 * 40 - 34 * 34 = 444 pixels. Shared: 3 rows above and below in 20
    # columns, and in the 34 rows between them nothing, as columns 20-22, 57-59 and 40-42, 77-79 differ.
    assert shifted["scores"]["boundary_iou"] == pytest.approx(120 / (2 * 444 - 120), abs=1e-5)
    assert [one["picture"] for one in shifted["pictures"]] == ["a.png", "b.png", "c.png"]


def test_the_report_says_what_was_measured(options, tmp_path):
    report = run(options, tmp_path)

    table, *others = report.tables()
    assert not others
    assert table.rows[0] == (
        "exact 80 fp32",
        "1.000",
        "1.000",
        "0.997",
        "0.0000",
        "1.000",
        "1.000",
        "1.000",
        "0.250",
        "0.0",
        "300",
    )
    assert report.document["exam"]["sha256"] == options.exam.digest
    assert "shifted 80 fp32 (f32): lowest IoU: a.png 0.33, b.png 0.33, c.png 0.33" in report.remarks()
    assert [row[-1] for row in report.readme_table().rows] == ["MIT", "MIT"]


def test_the_sheet_shows_pictures_truth_and_masks(options, tmp_path):
    path = run(options, tmp_path).draw(tmp_path / "out/quality.png")

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    cell, gap, head = 180, 8, 44
    assert pixels.shape == (head + 3 * (cell + 18 + gap), gap + 4 * (cell + gap))
    for column, left in ((1, 20), (2, 20), (3, 40)):
        x = gap + column * (cell + gap)
        row = pixels[head + 72, x + 2 : x + 178]  # through the middle of the picture, 144 pixels high
        assert row[round((left + 20) * 1.8)] > 250
        assert row[round((left - 10) * 1.8)] < 5


def test_masks_are_compared_with_those_of_rembg(options, tmp_path, monkeypatch):
    def masks(network, pictures, output, cache, cpus) -> RembgRun:
        output.mkdir(parents=True)
        for index, _ in enumerate(pictures):
            np.save(output / f"{index}.npy", (inside() * 255).astype(np.uint8))
        return RembgRun(0.5, 400, {"rembg": "2.0.86", "onnxruntime": "1.32.0"})

    monkeypatch.setattr(measure.rembg, "run", masks)
    (tmp_path / "u2netp.onnx").write_bytes(b"weights")
    network = RembgNetwork("u2netp", tmp_path / "u2netp.onnx")

    report = run(replace(options, rembg=(network,)), tmp_path)

    exact, shifted = report.document["against_rembg"]
    assert (exact["rembg"], exact["iou"], exact["mae"]) == ("rembg u2netp", 1.0, 0.0)
    assert (shifted["iou"], shifted["mae"]) == (pytest.approx(1 / 3, abs=1e-5), 0.2)
    assert report.document["networks"][2]["scores"]["iou"] == 1.0
    assert report.tables()[1].rows[0][:2] == ("exact 80 fp32", "rembg u2netp")


def test_a_wrong_truth_is_refused_before_a_network_runs(options, tmp_path, monkeypatch):
    Image.new("L", (50, 40), 255).save(options.exam.truths[2])
    monkeypatch.setattr(measure.variant_run, "run", lambda _: pytest.fail("ran"))

    with pytest.raises(SourceError, match="must have the size of its picture"):
        run(options, tmp_path)


def test_bundles_with_the_same_label_are_told_apart_by_their_source(tmp_path):
    one, other = bundle(tmp_path, "u2netp", "/a"), bundle(tmp_path, "u2netp", "/b")

    assert measure.labels([one, other]) == ["u2netp 80 fp32 (/a)", "u2netp 80 fp32 (/b)"]
    assert measure.labels([one]) == ["u2netp 80 fp32"]


@pytest.mark.parametrize(("pictures", "rows", "shown"), [(200, 4, [0, 50, 100, 150]), (3, 12, [0, 1, 2])])
def test_the_pictures_of_the_sheet_are_spread_over_the_exam(pictures, rows, shown):
    assert measure._sheet_rows(pictures, rows) == shown
