"""Residual sums read the values in INT8 that a layer reads, and read float again when that is taken back."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.convert.int8 import layers
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

    changed = layers.share_quantisers(model)

    assert [port.get_node().get_friendly_name() for port, _ in changed] == ["sum"]
    assert readers(model) == {"sum"}


def test_it_is_taken_back_exactly():
    model, untouched = residual_network(), residual_network()
    picture = np.random.default_rng(4).normal(size=(1, 4, SIZE, SIZE)).astype(np.float32)

    layers.restore(layers.share_quantisers(model))

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

    changed = layers.share_quantisers(model)

    assert [port.get_node().get_friendly_name() for port, _ in changed] == ["sum"]
