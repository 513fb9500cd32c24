"""`worker model import --precision fp32,int8`: the variant is there if it holds, and the bundle says what was tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.convert.importing.test_output_forms import FREE
from integration.model.tiny_network import build, save
from support import onnx_networks as toys
from support.this_cpu import has_vnni
from worker.cli import cli
from worker.contract.errors import BundleError, SettingsError, SetupError
from worker.convert.importing import ImportRequest, import_network
from worker.convert.int8 import offer
from worker.convert.int8.outcome import Figures, Outcome, Step
from worker.model.format.layout import read_listing
from worker.model.inference.runtime import core

KNOWN = {"mean": toys.MEAN, "scale": toys.STD, "licence": FREE, "measure_memory": False}


@pytest.fixture
def toy(tmp_path):
    return toys.save(toys.with_constant_channel(), tmp_path / "toy.onnx")


def imported(path, tmp_path, **options):
    steps = []
    report = import_network(ImportRequest(path, tmp_path / "bundle", **(KNOWN | options)), steps.append)
    return report, steps, json.loads((report.output / "manifest.json").read_text())


def test_a_network_with_a_constant_channel_gets_an_int8_variant(toy, tmp_path, capsys):
    report, steps, manifest = imported(toy, tmp_path, precisions=("fp32", "int8"))

    facts = manifest["int8"]
    if not has_vnni():  # judged by the masks of this CPU, whose sums of 8-bit products saturate
        assert report.precisions == ("fp32",) and not facts["offered"]
        return
    assert report.precisions == ("fp32", "int8")
    assert facts["offered"] and facts["steps"][0]["what"].startswith("constants taken off 1 channels of 1 convolutions")
    (taken_off,) = facts["constants_taken_off"]
    assert (taken_off["channels"], taken_off["means"]) == ([8], [toys.CONSTANT])
    assert facts["pictures"]["calibrated_on"] == "20 pictures of 5 photographs"
    agreement = manifest["variants"]["openvino_int8/toy_64x64_int8.xml"]["agreement"]
    assert agreement["iou"] == facts["steps"][-1]["iou"] >= 0.98 and agreement["pictures"] == 12
    assert "nncf" in manifest["tools"]
    assert any(step.startswith("INT8: quantise") for step in steps)
    for precision in ("fp32", "int8"):  # both say how they are fed
        stated = (report.output / f"openvino_{precision}/toy_64x64_{precision}.xml").read_text()
        assert '<mean_values value="123.675 116.28 103.53"' in stated
        assert '<output_activation value="probability"' in stated
    kinds = [n.get_type_name() for n in core().read_model(report.output / "openvino_int8/toy_64x64_int8.xml").get_ops()]
    assert "FakeQuantize" in kinds and "Gather" in kinds
    assert not list(report.output.glob(".*"))

    assert cli.main(["model", "show", str(report.output)], standalone_mode=False) == 0
    shown = capsys.readouterr().out
    assert "summary: INT8 holds: constants taken off 1 channels" in shown
    assert "- layer: " in shown and "channels: [8], means: [226.0]" in shown


def _refusal(*_, **__) -> Outcome:
    return Outcome(False, (Step("all layers in INT8", Figures(0.9, 0.5, 0.03, 12, 0.1), 0),), 0.2)


def test_a_network_that_does_not_hold_has_no_int8_variant_and_says_so(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(offer, "quantise", _refusal)

    report, _, manifest = imported(toy, tmp_path, precisions=("fp32", "int8"))

    assert report.precisions == ("fp32",)
    assert [path.name for path in report.output.glob("openvino_*")] == ["openvino_fp32"]
    (said,) = [one for one in report.warnings if "INT8" in one]
    assert said.startswith(
        "INT8 is not offered: the best of 1 forms, all layers in INT8, has IoU 0.9000 (worst 0.5000)"
    )
    assert manifest["int8"]["offered"] is False and manifest["int8"]["summary"] == said
    assert "variants" not in manifest


def test_where_only_int8_was_requested_nothing_is_written(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(offer, "quantise", _refusal)

    with pytest.raises(BundleError, match=r"INT8 is not offered.*Nothing was written; import it with --precision fp32"):
        imported(toy, tmp_path, precisions=("int8",))

    assert not (tmp_path / "bundle").exists()


def test_int8_alone_comes_from_a_float_network_that_is_not_kept(toy, tmp_path, monkeypatch):
    def copy(exact, output, *_, **__):
        assert exact.is_file() and "fp32" in exact.name
        for suffix in (".xml", ".bin"):
            output.with_suffix(suffix).write_bytes(exact.with_suffix(suffix).read_bytes())
        return Outcome(True, (Step("all", Figures(0.99, 0.9, 0.001, 12, 0.1), 0),), 0.2)

    monkeypatch.setattr(offer, "quantise", copy)

    report, _, _ = imported(toy, tmp_path, precisions=("int8",))

    assert report.precisions == ("int8",)
    files = [path.relative_to(report.output).as_posix() for path in report.output.rglob("*") if path.is_file()]
    assert sorted(c.precision for c in read_listing(files).candidates) == ["int8"] and len(files) == 3


def test_without_nncf_the_error_names_the_extra(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(offer, "is_installed", lambda: False)

    with pytest.raises(SetupError, match=r"INT8 variants require NNCF: pip install 'maskmill\[convert\]'"):
        imported(toy, tmp_path, precisions=("fp32", "int8"))


def test_pictures_without_int8_are_refused(toy, tmp_path):
    with pytest.raises(SettingsError, match="--calibration is for INT8: add int8 to --precision"):
        imported(toy, tmp_path, calibration=str(tmp_path))


def test_a_network_that_nncf_cannot_quantise_keeps_its_float_variant(toy, tmp_path, monkeypatch):
    def dies(task, label, *_):
        Path(task["output"]).write_text("half written")
        raise BundleError(f"{label}: NNCF cannot quantise the network: an operation")

    monkeypatch.setattr(offer, "build_in_process", dies)

    report, _, manifest = imported(toy, tmp_path, precisions=("fp32", "int8"))

    assert report.precisions == ("fp32",)
    assert manifest["int8"]["summary"] == (
        "INT8 is not offered: toy 64 int8: NNCF cannot quantise the network: an operation"
    )
    assert manifest["int8"]["summary"] in report.warnings
    assert not list(report.output.rglob("*int8*"))


def test_an_ir_is_quantised_as_it_is_fed(tmp_path):
    (tmp_path / "from").mkdir()
    variant = save(build(gain=3.0), tmp_path / "from", half=True)

    fed = {"mean": (0.0,) * 3, "scale": (30.0,) * 3}
    report, _, manifest = imported(variant.xml, tmp_path, precisions=("fp16", "int8"), **fed)

    assert report.precisions == ("fp16", "int8"), manifest["int8"]["summary"]
    (xml,) = (report.output / "openvino_int8").glob("*.xml")
    first = next(n for n in core().read_model(xml).get_ordered_ops() if n.get_type_name() == "FakeQuantize")
    limit = float(first.input_value(2).get_node().data.max())
    assert limit == pytest.approx(255 / 30, rel=0.2)  # with the values of ImageNet it would be 2.6
