"""Noisy layers are found in one pass, and left in float with or without their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from integration.convert.int8.test_constant_channels import FACTS, inputs, outputs, pictures
from worker.convert import quantise
from worker.convert.evaluate.agreement import compare
from worker.convert.int8 import layers
from worker.convert.int8.build import CONFIG
from worker.convert.int8.float_layers import leave_in_float
from worker.convert.int8.rounding_noise import rounding_noise
from worker.model.inference.runtime import ov

NAMES = ("astronaut.png", "coins.png", "chelsea.png")
SIZE = 64


def network(*, bad: str) -> Any:
    """Three convolutions; the second has weights or activations that eight bits cannot hold."""
    ops, rng = ov.opset13, np.random.default_rng(5)
    image = ops.parameter([1, 3, SIZE, SIZE], ov.Type.f32, name="image")

    def conv(value: Any, weights: np.ndarray, name: str) -> Any:
        kernel = weights.shape[-1] // 2
        pads = [kernel, kernel]
        node = ops.convolution(value, ops.constant(weights.astype(np.float32)), [1, 1], pads, pads, [1, 1])
        node.set_friendly_name(name)
        return node

    first = rng.normal(size=(8, 3, 3, 3)) * 0.4
    second = rng.normal(size=(8, 8, 3, 3)) * 0.15
    if bad == "weights":
        second[:, 0, 1, 1] = 300  # on a channel that is nearly zero
        first[0] *= 1e-4
    else:
        first[0] *= 3000  # one loud channel, which hardly counts
        second[:, 0] *= 1e-4
    hidden = ops.relu(conv(image, first, "first"))
    hidden = ops.relu(conv(hidden, second, "second"))
    small = ops.interpolate(
        ops.subtract(conv(hidden, rng.normal(size=(1, 8, 1, 1)), "third"), ops.constant(np.float32(0.5))),
        ops.constant(np.array([SIZE, SIZE], np.int64)),
        "linear_onnx",
        "sizes",
        axes=ops.constant(np.array([2, 3], np.int64)),
    )
    return ov.Model([ops.result(ops.sigmoid(small))], [image], "net")


@pytest.fixture(params=["weights", "activations"])
def bad(request) -> str:
    return request.param


def test_the_layer_at_fault_is_found_and_left_in_float(bad):
    exact = network(bad=bad)
    quantised = quantise.post_training(exact.clone(), pictures(NAMES), CONFIG, facts=FACTS)

    noises = rounding_noise(exact, quantised, inputs()[:2])

    assert noises[0].name == "second"
    assert {one.name for one in noises} == {"first", "second", "third"}
    assert noises[0].decibels < noises[1].decibels - 6
    assert noises[0].from_weights == (bad == "weights")

    before = compare(outputs(quantised), outputs(exact))
    leave_in_float(quantised, exact, noises[:1])
    after = compare(outputs(quantised), outputs(exact))

    assert before.mae > 4 * after.mae
    second = layers.layers(quantised)["second"]
    assert not layers.quantisers_before(second)
    assert layers.quantisers_before(layers.layers(quantised)["third"])
    is_exact = second.input_value(1).get_node().get_type_name() == "Constant"
    assert is_exact == (bad == "weights")  # else the weights stay in INT8


def test_products_of_every_kind_of_layer():
    ops = ov.opset13
    image = ops.parameter([1, 4, 10, 12], ov.Type.f32)
    zeros = lambda *shape: ops.constant(np.zeros(shape, np.float32))  # noqa: E731
    pads = ([1, 1], [0, 0], [0, 0], [1, 1])
    kinds = {
        "plain": (ops.convolution(image, zeros(6, 4, 3, 3), *pads), 8 * 10 * 6 * 4 * 9),
        "grouped": (ops.group_convolution(image, zeros(4, 1, 1, 3, 3), *pads), 8 * 10 * 4 * 9),
        "transposed": (ops.convolution_backprop_data(image, zeros(4, 6, 2, 2), [2, 2]), 10 * 12 * 4 * 6 * 4),
        "matrix": (ops.matmul(image, zeros(12, 5), False, False), 4 * 10 * 5 * 12),
    }
    for kind, (node, expected) in kinds.items():
        assert layers.products(node) == expected, kind


def test_quantisers_of_the_answer_are_those_behind_the_last_layer():
    exact = network(bad="weights")
    quantised = quantise.post_training(exact.clone(), pictures(NAMES), CONFIG, facts=FACTS)

    found = layers.quantisers_of_the_answer(quantised)

    before_layers = [one for layer in layers.layers(quantised).values() for one in layers.quantisers_before(layer)]
    assert len(before_layers) == 3
    assert not {one.get_name() for one in found} & {one.get_name() for one in before_layers}
    for one in found:
        layers.remove_quantiser(one)
    quantised.validate_nodes_and_infer_types()
    assert not layers.quantisers_of_the_answer(quantised)
