"""`worker bench images` with a tiny picture: checks the report, not the speed."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from worker.bench import images
from worker.bench.images_report import ImagesReport
from worker.cli.bench import bench_command
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.render import render


@pytest.fixture(scope="module")
def report() -> ImagesReport:
    affinity = os.sched_getaffinity(0)
    report = images.run(
        images.ImagesOptions(megapixels=(0.02,), size=InputSize.square(64), rounds=2), lambda line: None
    )
    assert os.sched_getaffinity(0) == affinity
    return report


def test_every_case_is_compared_with_its_reference(report):
    [result] = report.document["results"]
    cases = {case["label"]: case for case in result["cases"]}

    assert list(cases) == [images.REFERENCE_MASK, images.REFERENCE_CUTOUT, *images.CASES]
    for case in cases.values():
        assert len(case["samples_ms"]) == 2 and case["bytes_written"] > 0
        assert case["total_ms"] > 0
        assert case["ms_per_megapixel"] == pytest.approx(case["total_ms"] / result["megapixels"])
    for label, base in (("mask", images.REFERENCE_MASK), ("composite", images.REFERENCE_CUTOUT)):
        assert cases[label]["over_reference"] == pytest.approx(cases[label]["total_ms"] / cases[base]["total_ms"])


def test_the_document_is_json(report):
    assert json.loads(json.dumps(report.document))["benchmark"] == "images"


@pytest.mark.parametrize("label", images.CASES)
def test_a_case_has_the_options_of_its_label(label):
    options = OutputOptions(**images.CASES[label])
    words = label.replace(",", "").split()

    assert {kind.value for kind in options.outputs} == {"mask", "cutout", "composite"} & set(words)
    assert options.format.value in {*words, "png"}
    assert options.refine == ("refine" in words) and options.crop == ("crop" in words)


def test_the_reference_does_the_same_work():
    """Its mask differs from ours by rounding only."""
    data, size = images.jpeg(None, 0.05)
    mask = images.drawn_mask(InputSize.square(64))

    _, reference = images._reference(data, mask, cutout=False)
    [(_, ours)] = render(decode(data, LimitSettings()), mask, OutputOptions())[1]

    one, other = (np.asarray(Image.open(io.BytesIO(content))).astype(int) for content in (reference, ours))
    assert one.shape == size[::-1]
    assert np.abs(one - other).max() <= 1


def test_tables_and_the_readme_line_have_a_cell_for_every_heading(report):
    for table in (*report.tables(), report.readme_table()):
        assert {len(row) for row in table.rows} == {len(table.headings)}


def test_a_photograph_is_scaled_to_the_size(tmp_path):
    Image.new("RGB", (300, 200), (9, 99, 200)).save(tmp_path / "photo.png")

    _, size = images.jpeg(tmp_path / "photo.png", 0.5)

    assert size == (866, 577)


def test_a_file_that_is_not_a_picture_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_text("text")

    with pytest.raises(SetupError, match="cannot be read as a picture"):
        images.run(images.ImagesOptions(photo=tmp_path / "photo.jpg"), lambda line: None)


def test_the_command_writes_json_and_a_plot(tmp_path):
    done = CliRunner().invoke(
        bench_command, ["images", "--quick", "--megapixels", "0.02", "--size", "64", "--output", str(tmp_path / "out")]
    )

    assert done.exit_code == 0, done.output
    [result] = json.loads((tmp_path / "out" / "images.json").read_text())["results"]
    references = [images.REFERENCE_MASK, images.REFERENCE_CUTOUT]
    assert [case["label"] for case in result["cases"]] == references + list(images.QUICK_CASES)
    assert "| CPU | JPEG | network input | reference | mask | cut-out | refined cut-out |" in done.output
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert "no plot" in done.output
    else:
        with Image.open(tmp_path / "out" / "images.png") as plot:
            assert plot.width > 1000


def test_a_plot_that_cannot_be_written_is_an_error(report, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(SetupError, match="choose another --output"):
        report.draw(tmp_path / "missing" / "images.png")
