"""The shipped bundle of `contrast` is reproducible and has the form that a worker expects."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as op

from integration.convert.contrast.contrast_pictures import lab as reference_lab
from worker.convert.contrast import __main__ as command
from worker.convert.contrast.colour import cielab
from worker.convert.contrast.ops import stacked
from worker.convert.package import openvino_version
from worker.model.inference import runtime
from worker.model.inference.graph import IMAGENET_MEAN as MEAN
from worker.model.inference.graph import IMAGENET_SCALE as SCALE

ROOT = Path(__file__).parents[4]
XML = "openvino_fp32/contrast_320x320_fp32.xml"


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def model(bundle: Path) -> ov.Model:
    return runtime.core().read_model(bundle / XML)


def test_the_manifest_describes_the_shipped_files(bundle, manifest):
    for name, facts in manifest["files"].items():
        content = (bundle / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert {p.relative_to(bundle).as_posix() for p in bundle.rglob("*.*")} == {*manifest["files"], "manifest.json"}
    assert sum(facts["bytes"] for facts in manifest["files"].values()) < 1_000_000


def test_the_generator_gives_the_shipped_bytes(manifest, tmp_path):
    """In a new process, and in this one, where OpenVINO's generated names have counted up."""
    if manifest["tools"]["openvino"] != openvino_version():
        pytest.skip("bytes are reproducible only with the OpenVINO version that made the bundle")
    run = [sys.executable, "-m", "worker.convert.contrast", str(tmp_path / "own")]
    subprocess.run(run, check=True, cwd=ROOT, capture_output=True)
    assert command.main([str(tmp_path / "here")]) == 0

    made = [json.loads((tmp_path / place / "manifest.json").read_text("utf-8")) for place in ("own", "here")]

    assert made == [manifest, manifest]


def test_the_command_refuses_a_folder_that_is_not_a_bundle(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")

    assert command.main([str(tmp_path)]) == 1
    assert "is not a bundle" in capsys.readouterr().err


def test_input_and_output_are_named_static_and_float(model):
    ends = [(end.get_names(), list(end.shape), end.get_element_type()) for end in (model.input(0), model.output(0))]

    assert ends == [({"image"}, [1, 3, 320, 320], ov.Type.f32), ({"logits"}, [1, 1, 320, 320], ov.Type.f32)]
    assert (len(model.inputs), len(model.outputs)) == (1, 1)


def test_the_model_info_describes_the_input(model):
    def info(key: str) -> str:
        return model.get_rt_info(["model_info", key]).astype(str)

    assert info("mean_values") == "123.675 116.28 103.53"
    assert info("scale_values") == "58.395 57.12 57.375"
    assert info("model_type") == "Segmentation"
    assert info("input_dtype") == "f32"
    assert info("reverse_input_channels") == "False"
    assert info("embedded_processing") == "False"


def test_no_executed_layer_makes_the_plugin_choose_bf16(bundle):
    compiled = runtime.core().compile_model(bundle / XML, "CPU")

    kinds = {layer.get_rt_info()["layerType"].astype(str) for layer in compiled.get_runtime_model().get_ops()}

    assert "Inverse" in kinds  # the plugin's own names
    assert not kinds & {"Convolution", "FullyConnected", "MatMul", "Interpolate", "RNNSeq", "ROIPooling"}


def test_the_colour_space_is_cielab():
    image = op.parameter([1, 3, 256, 256], np.float32)
    compiled = runtime.core().compile_model(ov.Model([op.result(stacked(cielab(image)))], [image]), "CPU")
    pixels = np.random.default_rng(3).integers(0, 256, (256, 256, 3))
    pixels[0], pixels[1:40] = np.arange(256)[:, None], pixels[1:40] // 8  # greys, and dark colours

    given = ((pixels - MEAN) / SCALE).astype(np.float32).transpose(2, 0, 1)[None]
    lab = compiled(given)[0][0].transpose(1, 2, 0)

    assert np.linalg.norm(lab - reference_lab(pixels), axis=-1).max() < 0.25
