"""Convolutions to one channel, computed in blocks of 4 x 4 pixels: the same values, and others left as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.model.inference import one_channel
from worker.model.inference.runtime import core, ov

ops = ov.opset13
ROUNDING = 2e-5


def network(
    form: str = "f32",
    *,
    size: tuple[int, int] = (64, 96),
    kernel: int = 3,
    channels: int = 1,
    stride: int = 1,
    dilation: int = 1,
    bias: str = "scalar",
) -> Any:
    """Return a network of one convolution of 8 channels, with a bias."""
    random = np.random.default_rng(7)
    value = ops.parameter([1, 8, *size], ov.Type.f32)
    source: Any = value
    weights = random.normal(size=(channels, 8, kernel, kernel)).astype(np.float32)
    if form == "f16":
        constant = ops.convert(ops.constant(weights.astype(np.float16)), "f32")
    elif form == "int8":
        low, high = (ops.constant(np.float32(limit)) for limit in (-4, 4))
        source = ops.fake_quantize(value, low, high, low, high, 256)
        stored = np.clip(np.rint(weights * 30), -127, 127).astype(np.int8)
        scale = np.full((channels, 1, 1, 1), 1 / 30, np.float32)
        constant = ops.multiply(ops.convert(ops.constant(stored), "f32"), ops.constant(scale))
    else:
        constant = ops.constant(weights)
    pad = [dilation * (kernel // 2)] * 2
    result = ops.convolution(source, constant, [stride] * 2, pad, pad, [dilation] * 2)
    if bias == "scalar":
        result = ops.add(result, ops.constant(np.full((1, channels, 1, 1), 0.5, np.float32)))
    elif bias == "map":
        result = ops.add(result, ops.constant(random.normal(size=(1, channels, *size)).astype(np.float32)))
    return ov.Model([ops.result(ops.relu(result))], [value])


def answer(model: Any, picture: np.ndarray) -> np.ndarray:
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(picture)[0]


@pytest.mark.parametrize("form", ["f32", "f16", "int8"])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("bias", ["scalar", "map", "none"])
def test_the_values_stay_the_same(form, kernel, bias):
    model = network(form, kernel=kernel, bias=bias)
    picture = np.random.default_rng(3).standard_normal((1, 8, 64, 96)).astype(np.float32)
    expected = answer(model.clone(), picture)

    assert one_channel.replace(model) == 1

    assert "DepthToSpace" in {node.get_type_name() for node in model.get_ops()}
    given = answer(model, picture)
    assert given.shape == expected.shape == (1, 1, 64, 96)
    assert np.abs(given - expected).max() < ROUNDING


@pytest.mark.parametrize(
    "model",
    [
        network(channels=2),
        network(kernel=1),
        network(stride=2),
        network(dilation=2),
        network(size=(64, 66)),
        network(size=(32, 32)),
    ],
    ids=["two channels", "1 x 1", "stride 2", "dilation 2", "66 pixels", "small"],
)
def test_others_are_left_alone(model):
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]

    assert one_channel.replace(model) == 0

    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before
