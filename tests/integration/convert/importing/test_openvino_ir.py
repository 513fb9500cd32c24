"""Import of finished OpenVINO graphs: what they state about themselves is kept."""

from __future__ import annotations

import numpy as np
import pytest

from integration.convert.importing.test_output_forms import FREE, grey
from integration.model.tiny_network import MEAN, SCALE, SIZE, build, furthest, noise, plain_grey, save
from worker.contract.errors import BundleError, SettingsError
from worker.contract.input_size import InputSize
from worker.convert.importing import ImportRequest, import_network


def imported(path, tmp_path, **options):
    known = {"licence": FREE, "measure_memory": False}
    return import_network(ImportRequest(path, tmp_path / "bundle", **(known | options)))


def saved(model, tmp_path, **options):
    (tmp_path / "from").mkdir(exist_ok=True)
    return save(model, tmp_path / "from", size=InputSize.square(SIZE), **options)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_its_facts_are_kept_and_its_masks_stay(half, tmp_path):
    variant = saved(build(), tmp_path, half=half)

    report = imported(variant.xml, tmp_path, name="kept")

    decisions = {one.what: str(one) for one in report.decisions}
    assert "stated in the file" in decisions["normalisation"] and "mean 100 110 120" in decisions["normalisation"]
    assert report.precisions == (("fp16",) if half else ("fp32",))
    assert report.verification.max_levels in (0, 1)
    assert report.verification.reference.startswith("the file itself in OpenVINO")
    assert furthest(grey(report, noise(1)[0]), plain_grey(variant, noise(1))) <= 1


def test_blue_first_is_kept(tmp_path):
    model = build()
    model.set_rt_info("YES", ["model_info", "reverse_input_channels"])
    variant = saved(model, tmp_path)

    report = imported(variant.xml, tmp_path)

    assert report.verification.max_levels in (0, 1)
    (xml,) = report.output.rglob("*.xml")
    assert '<reverse_input_channels value="YES"' in xml.read_text()


def test_another_normalisation_can_be_given(tmp_path):
    variant = saved(build(), tmp_path)

    report = imported(variant.xml, tmp_path, mean=(0.5, 0.5, 0.5), scale=(1.0, 1.0, 1.0))

    assert furthest(grey(report, noise(1)[0]), plain_grey(variant, noise(1), (127.5,) * 3, (255.0,) * 3)) <= 1


def test_both_precisions_can_be_written(tmp_path):
    report = imported(saved(build(), tmp_path).xml, tmp_path, precisions=("fp32", "fp16"))

    assert sorted(path.parent.name for path in report.output.rglob("*.xml")) == ["openvino_fp16", "openvino_fp32"]


def test_a_name_that_file_names_cannot_hold_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="--name 'a b': use letters, digits"):
        imported(saved(build(), tmp_path).xml, tmp_path, name="a b")


def test_damaged_files_are_refused(tmp_path):
    variant = saved(build(), tmp_path)
    variant.bin.write_bytes(variant.bin.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"cannot be read by OpenVINO: .*; download it again"):
        imported(variant.xml, tmp_path)
    variant.bin.unlink()
    with pytest.raises(BundleError, match=r"has no tiny_64x64\.bin beside it"):
        imported(variant.xml, tmp_path)


def test_the_reference_of_these_tests_reads_the_facts():
    assert not np.allclose(MEAN, (123.675, 116.28, 103.53)) and not np.allclose(SCALE, (58.395, 57.12, 57.375))
