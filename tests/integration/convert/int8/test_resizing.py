"""Residual sums and resized maps in INT8, and back in float."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.convert.int8 import resizing
from worker.model.inference.runtime import ov

ops = ov.opset13
SIZE = 16


def residual_network() -> Any:
    """First -> (quantiser -> second) + first, a bias on `second`."""
    random = np.random.default_rng(2)
    image = ops.parameter([1, 4, SIZE, SIZE], ov.Type.f32, name="image")

    def conv(value: Any, name: str) -> Any:
        weights = ops.constant(random.normal(size=(4, 4, 3, 3)).astype(np.float32))
        node = ops.convolution(value, weights, [1, 1], [1, 1], [1, 1], [1, 1])
        return ops.relu(ops.add(node, ops.constant(np.full((1, 4, 1, 1), 0.1, np.float32)), name=f"{name} bias"))

    first = conv(image, "first")
    low, high = (ops.constant(np.float32(limit)) for limit in (0, 8))
    quantised = ops.fake_quantize(first, low, high, low, high, 256, name="quantiser")
    total = ops.add(conv(quantised, "second"), first, name="sum")
    return ov.Model([ops.result(total)], [image], "residual")


def readers(model: Any) -> set[str]:
    (quantiser,) = (node for node in model.get_ops() if node.get_friendly_name() == "quantiser")
    return {port.get_node().get_friendly_name() for port in quantiser.output(0).get_target_inputs()} & {"sum"}


def test_a_residual_sum_reads_what_the_layer_reads():
    model = residual_network()
    assert readers(model) == set()

    changed = resizing.share_quantisers(model)

    assert [port.get_node().get_friendly_name() for port, _ in changed] == ["sum"]
    assert readers(model) == {"sum"}


def test_it_is_taken_back_exactly():
    model, untouched = residual_network(), residual_network()
    picture = np.random.default_rng(4).normal(size=(1, 4, SIZE, SIZE)).astype(np.float32)

    resizing.restore(resizing.share_quantisers(model))

    assert readers(model) == set()
    found, expected = (ov.Core().compile_model(one, "CPU")(picture)[0] for one in (model, untouched))
    np.testing.assert_array_equal(found, expected)


def test_a_bias_is_no_sum():
    """The map in front of a bias may be quantised as well; the bias goes with its layer."""
    model = residual_network()
    (bias,) = (node for node in model.get_ops() if node.get_friendly_name() == "second bias")
    low, high = (ops.constant(np.float32(limit)) for limit in (-8, 8))
    source = bias.input_value(0)
    tail = ops.fake_quantize(source, low, high, low, high, 256, name="other")
    model.add_results([ops.result(tail)])

    changed = resizing.share_quantisers(model)

    assert [port.get_node().get_friendly_name() for port, _ in changed] == ["sum"]


def resizing_network(*, low: float = 0.0, readers: int = 1) -> Any:
    """Image -> convolution -> quantiser -> Interpolate -> another quantiser -> convolution."""
    random = np.random.default_rng(6)
    image = ops.parameter([1, 4, SIZE, SIZE], ov.Type.f32, name="image")

    def conv(value: Any) -> Any:
        weights = random.integers(-100, 100, size=(4, 4, 3, 3)).astype(np.int8)
        scaled = ops.multiply(ops.convert(ops.constant(weights), "f32"), ops.constant(np.float32(0.004)))
        return ops.convolution(value, scaled, [1, 1], [1, 1], [1, 1], [1, 1])

    def quantised(value: Any, least: float, most: float) -> Any:
        limits = [ops.constant(np.float32(limit)) for limit in (least, most)]
        return ops.fake_quantize(value, *limits, *limits, 256)

    small = quantised(ops.relu(conv(quantised(image, -4, 4))), 0, 4)
    large = ops.interpolate(
        small,
        ops.constant(np.array([2 * SIZE, 2 * SIZE], np.int64)),
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode="half_pixel",
        axes=ops.constant(np.array([2, 3], np.int64)),
    )
    results = [ops.result(conv(quantised(large, low, 5)))]
    results += [ops.result(ops.relu(large)) for _ in range(readers - 1)]
    return ov.Model(results, [image], "resizing")


def resized_types(model: Any) -> list[str]:
    ops_of = [node for node in model.get_ordered_ops() if node.get_type_name() == "Interpolate"]
    return [node.get_input_element_type(0).get_type_name() for node in ops_of]


def test_a_map_is_resized_in_int8_with_the_range_of_its_reader():
    model, exact = resizing_network(), resizing_network()
    picture = np.random.default_rng(4).normal(size=(1, 4, SIZE, SIZE)).astype(np.float32)

    changed = resizing.resize_in_int8(model)

    assert len(changed) == 1
    assert resized_types(model) == ["u8"]
    f32 = {"INFERENCE_PRECISION_HINT": "f32"}
    found, expected = (ov.Core().compile_model(one, "CPU", f32)(picture)[0] for one in (model, exact))
    assert np.abs(expected).mean() > 0.5
    # A step of the quantiser is 5 / 255; 36 of them, each less than one step off, are added with weights around 0.2.
    assert np.abs(found - expected).mean() < 0.02
    resizing.restore(changed)
    model.validate_nodes_and_infer_types()
    assert resized_types(model) == ["f32"]


@pytest.mark.parametrize(
    "model", [resizing_network(low=-5), resizing_network(readers=2)], ids=["signed", "two readers"]
)
def test_other_maps_are_resized_in_float(model):
    assert resizing.resize_in_int8(model) == []
    assert resized_types(model) == ["f32"]
