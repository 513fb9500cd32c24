"""`worker.convert.quantise` on a small network with every kind of weight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker.contract.errors import BundleError, SetupError
from worker.convert import quantise
from worker.convert.evaluate.agreement import compare
from worker.convert.quantisation_config import Overflow, QuantisationConfig
from worker.images.tensor import normalise
from worker.model.inference import runtime
from worker.model.inference.facts import NetworkFacts, OutputActivation, write_facts
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import ov

ROOT = Path(__file__).parents[3]

WEIGHTS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-100, 100, width=32)
)


def compiled(model: Any) -> Any:
    return runtime.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})


def masks(model: Any, pictures: np.ndarray) -> np.ndarray:
    network = compiled(model)
    inputs = normalise(pictures, IMAGENET_MEAN, IMAGENET_SCALE)
    return np.stack([1 / (1 + np.exp(-network(one[None])[0][0, 0])) for one in inputs])


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ops()]


def source(model: Any, name: str, port: int) -> str:
    """Return the type of the operation that feeds an input of a node."""
    node = next(node for node in model.get_ops() if node.get_friendly_name() == name)
    return str(node.input_value(port).get_node().get_type_name())


@given(WEIGHTS)
def test_symmetric_levels_are_within_half_a_step(weight):
    levels, scale = quantise.symmetric(weight)

    assert levels.dtype == np.int8
    assert abs(levels.astype(int)).max() <= quantise.STEPS
    assert (abs(levels * scale - weight) <= scale * 0.501 + 1e-6).all()


@given(WEIGHTS)
def test_levels_with_zero_point_are_within_a_step_and_keep_zero(weight):
    levels, zero, scale = quantise.with_zero_point(weight)

    assert levels.dtype == zero.dtype == np.uint8
    assert (abs((levels.astype(np.float32) - zero) * scale - weight) <= scale * 1.001 + 1e-6).all()
    assert levels[weight == 0].tolist() == np.broadcast_to(zero, weight.shape)[weight == 0].tolist()


def test_weight_only_stores_every_weight_in_eight_bits_and_barely_changes_the_masks(toy, pictures, tmp_path):
    small = quantise.weight_only(toy())

    ov.save_model(toy(), str(tmp_path / "whole.xml"), compress_to_fp16=False)
    ov.save_model(small, str(tmp_path / "small.xml"), compress_to_fp16=False)
    large = [node for node in small.get_ops() if node.get_type_name() == "Constant" and node.data.size >= 300]
    assert {node.get_element_type().to_string() for node in large} == {"i8", "u8"}
    assert len(large) == 4
    assert (tmp_path / "small.bin").stat().st_size < 0.4 * (tmp_path / "whole.bin").stat().st_size
    got = compare(masks(small, pictures), masks(toy(), pictures))
    assert 0 < got.mae < 0.005
    assert got.iou > 0.98


@pytest.mark.parametrize("stored", ["as constants", "behind a conversion"])
def test_weights_of_sixteen_bits_are_stored_in_eight_as_well(stored, tmp_path):
    ops, half = ov.opset13, np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float16)
    is_half = stored == "as constants"
    image = ops.parameter([1, 3, 16, 16], ov.Type.f16 if is_half else ov.Type.f32)
    weight = ops.constant(half) if is_half else ops.convert(ops.constant(half), "f32")
    node = ops.convolution(image, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    model = ov.Model([ops.result(node)], [image], "half")
    shown = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float16 if is_half else np.float32)
    expected = compiled(model)(shown)[0].astype(np.float32)

    small = quantise.weight_only(model)

    large = [node for node in small.get_ops() if node.get_type_name() == "Constant" and node.data.size > 100]
    assert [node.get_element_type().to_string() for node in large] == ["i8"]
    assert 0 < np.abs(compiled(small)(shown)[0].astype(np.float32) - expected).max() < 0.2
    ov.save_model(small, str(tmp_path / "small.xml"))


def test_a_network_that_would_stay_the_same_is_refused(toy):
    ops = ov.opset13
    image = ops.parameter([1, 3, 8, 8], ov.Type.f32)
    for model in (ov.Model([ops.result(ops.relu(image))], [image], "none"), quantise.weight_only(toy())):
        with pytest.raises(BundleError, match="INT8 weights: the network has no matrix product or convolution whose"):
            quantise.weight_only(model)


def test_pictures_are_normalised_as_the_network_says(toy, pictures):
    def limit(model: Any, facts: NetworkFacts | None = None) -> float:
        """Upper end of the range of the first layer's input."""
        small = quantise.post_training(model, pictures, facts=facts)
        first = next(node for node in small.get_ops() if node.get_friendly_name() == "first")
        return float(first.input_value(0).get_node().input_value(2).get_node().data.max())

    stated = toy()
    write_facts(stated, NetworkFacts((0.0,) * 3, (1000.0,) * 3, output_activation=OutputActivation.LOGITS), {})

    assert limit(stated) == pytest.approx(pictures.max() / 1000, rel=0.05)
    assert limit(toy(), NetworkFacts((0.0,) * 3, (10.0,) * 3)) == pytest.approx(pictures.max() / 10, rel=0.05)
    assert limit(toy()) == pytest.approx((pictures.max() - IMAGENET_MEAN[2]) / IMAGENET_SCALE[2], rel=0.1)


def test_weights_of_deformable_convolutions_are_expanded_once_at_compilation(toy):
    def executed(model: Any) -> list[str]:
        return sorted(n.rt_info["layerType"].astype(str) for n in compiled(model).get_runtime_model().get_ops())

    only_convolutions = quantise.compress_weights(toy(), quantise.CONVOLUTIONS)

    assert executed(only_convolutions) == executed(toy())


def test_offset_convolutions_are_found_upstream_of_deformable_ones(toy):
    assert quantise.offset_convolutions(toy()) == ["offsets"]


def test_post_training_quantises_products_and_convolutions(toy, pictures):
    reads = []

    small = quantise.post_training(toy(), pictures, on_progress=reads.append)

    assert source(small, "first", 0) == source(small, "offsets", 0) == "FakeQuantize"
    assert reads == [1, 2, 3]
    deformable = next(node for node in small.get_ops() if node.get_type_name() == "DeformableConvolution")
    scaled = deformable.input_value(2).get_node()
    assert scaled.get_type_name() == "Multiply"
    assert scaled.input_value(0).get_node().input_value(0).get_element_type() == ov.Type.i8
    got = compare(masks(small, pictures), masks(toy(), pictures))
    assert 0 < got.mae < 0.03
    assert got.iou > 0.9


def test_offsets_can_stay_in_float(toy, pictures):
    small = quantise.post_training(toy(), pictures, QuantisationConfig(float_offsets=True))

    assert source(small, "first", 0) == "FakeQuantize"
    assert source(small, "offsets", 0) != "FakeQuantize"
    assert source(small, "offsets", 1) == "Multiply"  # its weights are in INT8 nevertheless


def test_smoothing_reads_the_pictures_once_more(toy, pictures):
    reads = []

    quantise.post_training(toy(), pictures, QuantisationConfig(smooth=True), reads.append)

    assert reads[-1] == QuantisationConfig(smooth=True).passes * len(pictures) == 6


@pytest.mark.parametrize(("overflow", "largest"), [(Overflow.EVERYWHERE, 64), (Overflow.NOWHERE, 127)])
def test_seven_bits_leave_room_for_sums(toy, pictures, overflow, largest):
    small = quantise.post_training(toy(), pictures, QuantisationConfig(overflow=overflow))

    convolution = next(node for node in small.get_ops() if node.get_friendly_name() == "offsets")
    quantiser = convolution.input_value(1).get_node()
    levels = quantiser.input_value(0).get_node()
    while levels.get_type_name() != "Constant":
        levels = levels.input_value(0).get_node()
    assert levels.get_element_type() == ov.Type.i8
    assert abs(levels.data.astype(int)).max() in {largest, largest - 1, largest + 1}


def test_without_nncf_the_error_names_the_remedy(toy, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)

    with pytest.raises(SetupError, match=r"pip install 'maskmill\[convert\]'"):
        quantise.post_training(toy(), pictures)


CALLS_HOME = """
import json, sys
seen = []
watched = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.posix_spawn")
sys.addaudithook(lambda event, args: seen.append(event) if event in watched else None)
import numpy as np, pathlib, threading, time
import runpy
import worker.convert.build_variant
from worker.convert import quantise
toy = runpy.run_path(sys.argv[1])["_toy"]
quantise.post_training(toy(), np.zeros((1, 32, 32, 3), np.uint8))
time.sleep(0.2)
import nncf.telemetry.wrapper as wrapper
print("\\n" + json.dumps({
    "seen": [event for event in seen if event.startswith("socket")],
    "threads": [thread.name for thread in threading.enumerate()],
    "telemetry": type(wrapper.telemetry).__module__,
    "home": [str(path) for path in pathlib.Path.home().rglob("*") if path.is_file()],
}))
"""


def test_quantisation_sends_nothing_and_writes_nothing_to_the_home_folder(tmp_path):
    # NNCF disables its telemetry under pytest, so this needs another process, without CI variables.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NNCF_CI", "NNCF_DEV")}
    done = subprocess.run(
        [sys.executable, "-c", CALLS_HOME, str(Path(__file__).with_name("conftest.py"))],
        env={**environment, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )

    observed = json.loads(done.stdout.splitlines()[-1])
    assert observed == {"seen": [], "threads": ["MainThread"], "telemetry": "unittest.mock", "home": []}
