"""A small network with every kind of weight, and pictures for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from worker.model.inference.runtime import ov

SIZE = 32


@pytest.fixture
def toy() -> Callable[[], Any]:
    """Build `[1, 3, 32, 32]` -> 3x3 convolution -> modulated deformable 3x3 -> matrix product -> logits."""
    return _toy


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """Smooth, noisy pictures u8 `[3, 32, 32, 3]`."""
    rng = np.random.default_rng(3)
    ramps = np.linspace(0, 200, SIZE)[None, :, None, None] * rng.random((3, 1, SIZE, 3))
    return (ramps + rng.integers(0, 50, (3, SIZE, SIZE, 3))).astype(np.uint8)


def _toy() -> Any:
    ops, rng = ov.opset13, np.random.default_rng(5)

    def weights(*shape: int, gain: float = 1.0) -> Any:
        values = rng.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:]))
        return ops.constant(values.astype(np.float32))

    def conv(x: Any, inputs: int, outputs: int, name: str, gain: float = 1.0) -> Any:
        node = ops.convolution(x, weights(outputs, inputs, 3, 3, gain=gain), [1, 1], [1, 1], [1, 1], [1, 1])
        node.set_friendly_name(name)
        return ops.add(node, ops.constant(rng.standard_normal((1, outputs, 1, 1)).astype(np.float32) * np.float32(0.1)))

    image = ops.parameter([1, 3, SIZE, SIZE], ov.Type.f32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    x = ops.relu(conv(image, 3, 16, "first"))
    offsets = ops.variadic_split(
        conv(x, 16, 27, "offsets", 0.3), ops.constant(np.int64(1)), ops.constant(np.array([18, 9], np.int64))
    )
    modulator = ops.multiply(ops.sigmoid(offsets.output(1)), ops.constant(np.float32(2)))
    x = ops.deformable_convolution(
        x,
        offsets.output(0),
        weights(16, 16, 3, 3),
        [1, 1],
        [1, 1],
        [1, 1],
        [1, 1],
        modulator,
        bilinear_interpolation_pad=True,
    )
    tokens = ops.reshape(ops.relu(x), ops.constant(np.array([1, 16, -1], np.int64)), special_zero=False)
    tokens = ops.transpose(tokens, ops.constant(np.array([0, 2, 1], np.int64)))
    tokens = ops.gelu(ops.matmul(tokens, weights(32, 16), False, True), "erf")
    logits = ops.matmul(tokens, weights(1, 32, gain=6.0), False, True)
    shape = ops.constant(np.array([1, 1, SIZE, SIZE], np.int64))
    return ov.Model([ops.result(ops.reshape(logits, shape, special_zero=False))], [image], "toy")
