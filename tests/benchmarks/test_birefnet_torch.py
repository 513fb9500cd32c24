"""Compare the eager PyTorch twin with the reference arrays, and the OpenVINO graph with the twin on other weights.

PyTorch is not a dependency of this project: install it (`pip install torch`) to run these.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from support.birefnet_weights import DATA, stand_in_image, stand_in_state_dict
from worker.contract.input_size import InputSize
from worker.convert.birefnet.checkpoint import validate
from worker.convert.birefnet.network import build
from worker.model.inference import runtime

torch = importlib.import_module("torch")
twin = importlib.import_module("worker.bench.birefnet_torch")

TOLERANCE = 2e-4
"""Largest difference of the logits for any FP32 implementation of the published network."""


def run(arrays: dict[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
    maps: dict[str, object] = {}
    with torch.inference_mode():
        maps["logits"] = twin.forward(twin.weights(arrays), torch.from_numpy(image), maps=maps)
    return {name: tensor.numpy() for name, tensor in maps.items()}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return validate(stand_in_state_dict(), "the stand-in weights")


@pytest.mark.parametrize("size", [128, 256])
def test_the_twin_agrees_with_the_published_definition(arrays, size):
    maps = run(arrays, stand_in_image(size))

    with np.load(DATA / f"reference_{size}.npz") as reference:
        furthest = {name: float(np.abs(maps[name] - reference[name]).max()) for name in reference.files}
    assert "logits" in furthest and max(furthest.values()) <= TOLERANCE, furthest


def test_the_graph_agrees_with_the_twin_on_other_weights_and_another_size():
    other = validate(stand_in_state_dict("other"), "other stand-in weights")
    image = stand_in_image(160)
    properties = {"INFERENCE_PRECISION_HINT": "f32"}

    graph = runtime.core().compile_model(build(other, InputSize.square(160)), "CPU", properties)

    assert np.abs(graph(image)[0] - run(other, image)["logits"]).max() <= TOLERANCE


def test_a_deformable_convolution_without_offsets_is_a_convolution():
    rng = torch.Generator().manual_seed(1)
    x, weight = torch.randn(1, 4, 9, 7, generator=rng), torch.randn(5, 4, 3, 3, generator=rng)

    found = twin.deform_conv(x, torch.zeros(1, 18, 9, 7), torch.ones(1, 9, 9, 7), weight)

    assert torch.allclose(found, torch.nn.functional.conv2d(x, weight, padding=1), atol=1e-5)


def test_offsets_are_down_and_right():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 2, 1] = 1.0
    offsets = torch.zeros(1, 2, 4, 4)
    offsets[0, 0] = 2.0  # dy
    offsets[0, 1] = 1.0  # dx

    found = twin.deform_conv(x, offsets, torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1, 1))

    assert found[0, 0].nonzero().tolist() == [[0, 0]]
