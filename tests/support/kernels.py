"""The native kernels for tests: the library, built if a compiler exists, and a graph of one deformable convolution."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from worker.kernels import build
from worker.model.inference import runtime
from worker.model.inference.native import deformable
from worker.model.inference.native.operations import Replacement
from worker.model.inference.runtime import ov

ops = ov.opset13

STRICT = "CI" in os.environ
"""Whether compiler warnings are errors. Only in CI, as a newer compiler on another machine may know more warnings."""


def need_library() -> None:
    """Build the library if its sources changed; skip the test on a machine without a compiler."""
    missing = build.tools()
    if isinstance(missing, str):
        pytest.skip(missing)
    if not build.up_to_date():
        build.build(strict=STRICT)


def node(
    size: tuple[int, int] = (16, 20),
    *,
    channels: int = 64,
    outputs: int = 48,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    batch: int = 1,
    relu: bool = True,
    spread: float = 2.0,
    positive: bool = True,
    seed: int = 0,
) -> tuple[Any, list[np.ndarray]]:
    """Return a model of one modulated deformable convolution with bias, and its inputs: data, offsets, modulator."""
    rng = np.random.default_rng(seed)
    half = dilation * (kernel // 2)
    out = tuple((side + 2 * half - dilation * (kernel - 1) - 1) // stride + 1 for side in size)
    shapes = [(batch, channels, *size), (batch, 2 * kernel**2, *out), (batch, kernel**2, *out)]
    data, offsets, modulator = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    inputs = [np.maximum(data, 0) if positive else data, spread * offsets, 2 / (1 + np.exp(-modulator))]
    x, shifts, factors = (ops.parameter(shape, ov.Type.f32) for shape in shapes)
    weights = rng.standard_normal((outputs, channels, kernel, kernel)).astype(np.float32) / (kernel * channels**0.5)
    pads = [half, half]
    y = ops.deformable_convolution(
        x,
        shifts,
        ops.constant(weights),
        [stride] * 2,
        pads,
        pads,
        [dilation] * 2,
        factors,
        bilinear_interpolation_pad=True,
    )
    y = ops.add(y, ops.constant(rng.standard_normal((1, outputs, 1, 1)).astype(np.float32) * 0.1))
    return ov.Model([ops.relu(y) if relu else y], [x, shifts, factors], "node"), inputs


def replaced(model: Any, arithmetic: str = "f32") -> Replacement:
    """Replace the operation in a graph by the kernel, with this arithmetic."""
    return deformable.replace(model, mode="auto", int8=arithmetic == "i8", floats=arithmetic.replace("i8", "f32"))


def compiled(model: Any, *, streams: int = 1, threads: int = 1) -> Any:
    """Compile in f32 with explicit streams and threads."""
    properties = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    return runtime.core().compile_model(model, "CPU", properties)


def run(compiled_model: Any, inputs: list[np.ndarray]) -> np.ndarray:
    """Return a copy of the first output."""
    result: np.ndarray = compiled_model(inputs)[0].copy()
    return result
