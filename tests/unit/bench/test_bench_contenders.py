"""The list of contenders and their settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.bench.benchmark_app import CPU_TIME, PEAK_MEMORY, REPORT, arguments, read_report
from worker.bench.contenders import contenders, variants
from worker.bench.harness.machine import isa_words, missing, version
from worker.bench.harness.measure import TurnTiming
from worker.bench.model import ModelOptions, images_of_turn, run
from worker.contract.errors import BundleNotFound, SettingsError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import PlanSettings
from worker.model.format.variant import Variant


def variant(precision: str) -> Variant:
    return Variant("birefnet_lite", InputSize.square(512), precision, Path("m.xml"), Path("m.bin"), "0" * 64)


def test_every_kind_of_contender_is_there():
    rows = contenders(variant("fp32"), [variant("fp32"), variant("int8")], "f32")

    assert [row.label for row in rows] == [
        "plain conversion f32",
        "maskmill fp32",
        "maskmill int8",
        "benchmark_app on maskmill fp32",
        "benchmark_app on maskmill int8",
        "PyTorch eager",
        "PyTorch eager, huge pages",
        "ONNX Runtime",
    ]
    assert [row.label for row in rows if not row.huge_pages] == ["PyTorch eager"]


def test_with_bf16_float_networks_run_in_both_and_the_rest_in_bf16():
    rows = contenders(variant("fp32"), [variant("fp32"), variant("int8")], "bf16")

    openvino = [(row.label, row.arithmetic) for row in rows if row.job == "openvino"]
    assert openvino == [
        ("plain conversion f32", "f32"),
        ("plain conversion bf16", "bf16"),
        ("maskmill fp32", "f32"),
        ("maskmill fp32 in bf16", "bf16"),
        ("maskmill int8 in bf16", "bf16"),
    ]
    assert [row.label for row in rows if row.job == "benchmark_app"] == [
        "benchmark_app on maskmill fp32 in bf16",
        "benchmark_app on maskmill int8 in bf16",
    ]


def test_with_native_kernels_ours_are_measured_with_and_without_and_int8_with_each_alone():
    rows = contenders(variant("fp32"), [variant("fp32"), variant("int8")], "f32", native=True)

    assert [(row.label, row.kernels) for row in rows if row.role == "ours"] == [
        ("maskmill fp32", "off"),
        ("maskmill int8", "off"),
        ("maskmill fp32, native kernels", "auto"),
        ("maskmill int8, native kernels", "auto"),
        ("maskmill int8, native deformable convolution alone", "deformable_convolution"),
        ("maskmill int8, native layer norm alone", "layer_norm"),
        ("maskmill int8, native window attention alone", "window_attention"),
    ]
    assert len([row for row in rows if row.job == "benchmark_app"]) == 2


def test_a_request_can_be_sent_as_json():
    rows = contenders(variant("fp32"), [variant("int8")], "f32")

    assert json.loads(json.dumps(rows[1].request()))["variant"]["precision"] == "int8"
    assert rows[-1].request()["variant"] is None


def test_a_bundle_without_the_size_is_refused(tmp_path):
    folder = tmp_path / "openvino_fp32"
    folder.mkdir()
    for suffix in ("xml", "bin"):
        (folder / f"birefnet_lite_512x512_fp32.{suffix}").write_bytes(b"x")

    assert [v.precision for v in variants(tmp_path, InputSize.square(512))] == ["fp32"]
    with pytest.raises(BundleNotFound, match="size 1024"):
        variants(tmp_path, InputSize.square(1024))


@pytest.mark.parametrize("streams", range(1, 20))
def test_a_turn_leaves_no_stream_and_no_request_idle_at_its_end(streams):
    images = images_of_turn(streams)

    assert images >= 4
    assert images % streams == 0 and images % (streams + 1) == 0


def test_benchmark_app_gets_the_settings_of_the_engine():
    request = {
        "variant": {"xml": "m.xml"},
        "normalised": "i.npy",
        "streams": 3,
        "threads": 12,
        "arithmetic": "bf16",
    }

    words = arguments(request, 12)
    options = dict(zip(words[:-1:2], words[1:-1:2], strict=True))

    assert options["-nstreams"] == "3" and options["-nthreads"] == "12" and options["-nireq"] == "4"
    assert options["-hint"] == "none" and options["-pin"] == "YES" and options["-infer_precision"] == "bf16"
    assert options["-niter"] == "12" and options["-i"] == "i.npy" and options["-ip"] == "f32"


def test_the_report_of_benchmark_app_is_read(tmp_path):
    results = {"total number of iterations": "12", "total execution time (ms)": "1234.5", "throughput": "9.72"}
    (tmp_path / REPORT).write_text(json.dumps({"execution_results": results}))

    (tmp_path / CPU_TIME).write_text("2.25")
    (tmp_path / PEAK_MEMORY).write_text("123456")

    assert read_report(tmp_path) == (TurnTiming(12, 1.2345, 2.25), 123456)


@pytest.mark.parametrize("text", [None, "", "[]", '{"execution_results": {}}'])
def test_a_report_of_another_form_is_an_error(tmp_path, text):
    if text is not None:
        (tmp_path / REPORT).write_text(text)

    with pytest.raises(SetupError, match="no readable report"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"avx2"}, "AVX2, no VNNI, no bf16"),
        ({"avx2", "avx_vnni"}, "AVX2, VNNI, no bf16"),
        ({"avx2", "avx512f", "avx512_vnni"}, "AVX-512, VNNI, no bf16"),
        ({"avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"}, "AVX-512, VNNI, bf16, AMX"),
        (set(), "no AVX2, no VNNI, no bf16"),
    ],
)
def test_the_instruction_sets_of_a_cpu_in_words(flags, words):
    assert isa_words(frozenset(flags)) == words


def test_modules_that_are_not_installed_are_named():
    assert missing("json", "no_such_module_at_all") == ["no_such_module_at_all"]
    assert version("no-such-package-at-all") is None


def test_one_round_is_too_few():
    with pytest.raises(SettingsError, match="at least 2"):
        run(ModelOptions(sizes=(InputSize.square(512),), rounds=1), PlanSettings(), lambda _: None)


def test_variables_that_break_pinning_are_refused(monkeypatch):
    monkeypatch.setenv("KMP_AFFINITY", "compact")

    with pytest.raises(SetupError, match="KMP_AFFINITY"):
        run(ModelOptions(sizes=(InputSize.square(512),), rounds=2), PlanSettings(), lambda _: None)
