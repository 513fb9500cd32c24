"""Bilinear upsampling of one channel in other operations: the same values, and others left as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.model.inference import upsampling
from worker.model.inference.runtime import core, ov

ROUNDING = 2e-5


def resize(
    size: tuple[int, int],
    output_size: tuple[int, int],
    kind: str = "half_pixel",
    *,
    channels: int = 1,
    mode: str = "linear_onnx",
    pads: tuple[int, ...] = (),
) -> Any:
    """Return a network of one Interpolate `[1,channels,h,w] -> [1,channels,H,W]`."""
    ops = ov.opset13
    value = ops.parameter([1, channels, *size], ov.Type.f32)
    result = ops.interpolate(
        *(value, np.array(output_size, np.int64), mode, "sizes"),
        coordinate_transformation_mode=kind,
        axes=np.array([2, 3], np.int64),
        pads_begin=list(pads),
        pads_end=list(pads),
    )
    return ov.Model([ops.result(result)], [value])


def answer(model: Any, picture: np.ndarray) -> np.ndarray:
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(picture)[0]


def kinds(model: Any) -> set[str]:
    return {node.get_type_name() for node in model.get_ops()}


@pytest.mark.parametrize(
    ("size", "output_size", "kind", "becomes"),
    [
        ((64, 64), (128, 128), "half_pixel", "ConvolutionBackpropData"),
        ((24, 40), (96, 80), "pytorch_half_pixel", "ConvolutionBackpropData"),
        ((10, 10), (320, 320), "half_pixel", "MatMul"),
        ((32, 48), (96, 100), "half_pixel", "MatMul"),
        ((64, 32), (256, 128), "align_corners", "MatMul"),
        ((24, 40), (96, 161), "align_corners", "MatMul"),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "linear_onnx"])
def test_the_values_stay_the_same(size, output_size, kind, becomes, mode):
    model = resize(size, output_size, kind, mode=mode)
    picture = np.random.default_rng(3).standard_normal((1, 1, *size)).astype(np.float32)
    expected = answer(model.clone(), picture)

    assert upsampling.replace(model) == 1

    assert becomes in kinds(model)
    assert "Interpolate" not in kinds(model)
    given = answer(model, picture)
    assert given.shape == expected.shape
    assert np.abs(given - expected).max() < ROUNDING


@pytest.mark.parametrize(
    "model",
    [
        resize((64, 64), (128, 128), channels=2),
        resize((128, 128), (64, 64)),
        resize((64, 64), (128, 64)),
        resize((64, 64), (128, 128), mode="nearest"),
        resize((64, 64), (128, 128), "asymmetric"),
        resize((60, 60), (124, 124), pads=(0, 0, 1, 1)),
        resize((16, 16), (32, 32)),
        resize((1000, 1000), (1500, 1500)),
    ],
    ids=["channels", "smaller", "one-axis", "nearest", "asymmetric", "pads", "few-pixels", "dear"],
)
def test_others_are_left_as_they_are(model):
    before = kinds(model)

    assert upsampling.replace(model) == 0

    assert kinds(model) == before
    assert "Interpolate" in before
