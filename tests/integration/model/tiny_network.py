"""A network of two convolutions with known weights, and the plain way to compute what the engine must give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worker.images.tensor import normalise
from worker.model.format.variant import Variant
from worker.model.inference.runtime import core, ov

SIZE = 64
MEAN = (100.0, 110.0, 120.0)
SCALE = (50.0, 60.0, 70.0)
"""Not those of ImageNet, so that a test sees whether they are read."""


def build(*, size: int | None = SIZE, gain: float = 1.0, sigmoid: bool = False, info: bool = True) -> Any:
    """`[1,3,R,R] -> [1,1,R,R]`: 3x3 to eight channels, ReLU, 1x1 to one.

    Args:
        size: R; None for a dynamic shape.
        gain: of the logits; 1 fills the grey levels evenly, 50 makes most of them 0 or 255.
        sigmoid: end in one.
        info: write mean and scale into the IR.
    """
    ops, rng = ov.opset13, np.random.default_rng(7)
    side = -1 if size is None else size
    image = ops.parameter(ov.PartialShape([1, 3, side, side]), ov.Type.f32, name="image")
    first = ops.constant(rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * 0.4)
    second = ops.constant(rng.normal(size=(1, 8, 1, 1)).astype(np.float32) * gain)
    hidden = ops.relu(ops.convolution(image, first, [1, 1], [1, 1], [1, 1], [1, 1]))
    logits = ops.convolution(hidden, second, [1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([ops.result(ops.sigmoid(logits) if sigmoid else logits)], [image], "tiny")
    if info:
        model.set_rt_info(" ".join(map(str, MEAN)), ["model_info", "mean_values"])
        model.set_rt_info(" ".join(map(str, SCALE)), ["model_info", "scale_values"])
    return model


def save(model: Any, folder: Path, *, size: int = SIZE, half: bool = False) -> Variant:
    """Write the IR and call it a variant of this size; `half` stores the weights in 16 bits."""
    xml = folder / f"tiny_{size}.xml"
    ov.save_model(model, str(xml), compress_to_fp16=half)
    return Variant("tiny", size, "fp16" if half else "fp32", xml, xml.with_suffix(".bin"), "0" * 64)


def plain_grey(variant: Variant, pixels: np.ndarray, mean=MEAN, scale=SCALE) -> np.ndarray:
    """The same in NumPy around the plain network: u8 [1,R,R,3] -> u8 [R,R]."""
    network = core().compile_model(str(variant.xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = network(normalise(pixels, mean, scale))[0][0, 0]
    sigmoid = (1 + np.tanh(logits.astype(np.float64) / 2)) / 2  # the form that cannot overflow
    return np.rint(255 * sigmoid).astype(np.uint8)


def noise(seed: int) -> np.ndarray:
    """A picture that differs everywhere from that of another seed."""
    return np.random.default_rng(seed).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    """Largest difference in grey levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
