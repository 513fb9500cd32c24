"""The weights used to measure speed from S3 to S3 give masks with areas and edges."""

from __future__ import annotations

import numpy as np

from support.birefnet_weights import subject_state_dict
from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import ALL
from worker.model.inference import runtime

SIZE = 128


def test_bright_areas_are_the_subject():
    down, across = np.mgrid[0:SIZE, 0:SIZE]
    disc = np.hypot(down - 60, across - 70) < 40
    grain = 0.1 * np.random.default_rng(1).standard_normal((3, SIZE, SIZE))
    picture = (np.where(disc, 1.5, -1.0) + grain)[None].astype(np.float32)
    model = build(checkpoint.validate(subject_state_dict(), "subject"), InputSize.square(SIZE), ALL)
    compiled = runtime.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    (logits,) = compiled({"image": picture}).values()

    inner = (slice(8, -8), slice(8, -8))  # without the border, which is affected by zero padding
    assert (((logits[0, 0] > 0) == disc)[inner]).mean() > 0.98
    assert (abs(logits) > 6).mean() > 0.9  # black or white, apart from the edges
