"""A network of two convolutions with known weights, and a plain NumPy reference for the output of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worker.contract.input_size import InputSize
from worker.images.tensor import normalise
from worker.model.format.variant import Variant
from worker.model.inference.runtime import core, ov

SIZE = 64
MEAN = (100.0, 110.0, 120.0)
SCALE = (50.0, 60.0, 70.0)
"""Different from those of ImageNet, so that a test fails if they are not read."""


def build(*, size: int | InputSize | None = SIZE, gain: float = 1.0, sigmoid: bool = False, info: bool = True) -> Any:
    """Build `[1,3,H,W] -> [1,1,H,W]`: 3x3 to eight channels, ReLU, 1x1 to one.

    Args:
        size: a side of a square, or height and width; None for a dynamic shape.
        gain: of the logits; 1 fills the grey levels evenly, 50 makes most of them 0 or 255.
        sigmoid: whether the network ends in a sigmoid.
        info: whether mean and scale are written into the IR.
    """
    ops, rng = ov.opset13, np.random.default_rng(7)
    height, width = (-1, -1) if size is None else sides(size)
    image = ops.parameter(ov.PartialShape([1, 3, height, width]), ov.Type.f32, name="image")
    first = ops.constant(rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * 0.4)
    second = ops.constant(rng.normal(size=(1, 8, 1, 1)).astype(np.float32) * gain)
    hidden = ops.relu(ops.convolution(image, first, [1, 1], [1, 1], [1, 1], [1, 1]))
    logits = ops.convolution(hidden, second, [1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([ops.result(ops.sigmoid(logits) if sigmoid else logits)], [image], "tiny")
    if info:
        model.set_rt_info(" ".join(map(str, MEAN)), ["model_info", "mean_values"])
        model.set_rt_info(" ".join(map(str, SCALE)), ["model_info", "scale_values"])
    return model


def save(model: Any, folder: Path, *, size: int | InputSize = SIZE, half: bool = False) -> Variant:
    """Write the IR and return it as a variant of this size; `half` stores the weights in 16 bits."""
    xml = folder / f"tiny_{size}.xml"
    ov.save_model(model, str(xml), compress_to_fp16=half)
    return Variant("tiny", InputSize(*sides(size)), "fp16" if half else "fp32", xml, xml.with_suffix(".bin"), "0" * 64)


def sides(size: int | InputSize) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else (size.height, size.width)


def plain_grey(variant: Variant, pixels: np.ndarray, mean=MEAN, scale=SCALE) -> np.ndarray:
    """Compute the expected grey levels in NumPy around the plain network: u8 [1,R,R,3] -> u8 [R,R]."""
    network = core().compile_model(str(variant.xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = network(normalise(pixels, mean, scale))[0][0, 0]
    sigmoid = (1 + np.tanh(logits.astype(np.float64) / 2)) / 2  # the form that cannot overflow
    return np.rint(255 * sigmoid).astype(np.uint8)


def noise(seed: int, size: int | InputSize = SIZE) -> np.ndarray:
    """Return a random image u8 [1, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (1, *sides(size), 3), dtype=np.uint8)


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    """Return the largest difference in grey levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
