"""The shipped bundle of `contrast`, compiled once and fed with plain Pillow and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.model.inference import runtime

SIZE = 320
BUNDLE = Path(__file__).parents[4] / "worker" / "model" / "builtin" / "contrast"
MEAN = np.array([123.675, 116.28, 103.53])
SCALE = np.array([58.395, 57.12, 57.375])


@pytest.fixture(scope="session")
def bundle() -> Path:
    return BUNDLE


@pytest.fixture(scope="session")
def logits() -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from u8 pixels `[320, 320, 3]` to logits `[320, 320]`."""
    xml = BUNDLE / "openvino_fp32" / f"contrast_{SIZE}x{SIZE}_fp32.xml"
    compiled = runtime.core().compile_model(xml, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})

    def run(pixels: np.ndarray) -> np.ndarray:
        image = ((pixels - MEAN) / SCALE).astype(np.float32).transpose(2, 0, 1)[None]
        return compiled({"image": np.ascontiguousarray(image)})["logits"][0, 0].copy()

    return run


@pytest.fixture(scope="session")
def mask(logits: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from u8 pixels `[H, W, 3]` to a u8 mask `[H, W]`; Pillow resizes both, as in a worker."""

    def run(pixels: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(pixels)
        small = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        levels = np.rint(255 / (1 + np.exp(-logits(small)))).astype(np.uint8)
        return np.asarray(Image.fromarray(levels).resize(picture.size, Image.Resampling.BILINEAR))

    return run
