"""The whole network on the native kernel with stand-in weights, compared with the published definition."""

from __future__ import annotations

import numpy as np
import pytest

from support import kernels
from support.birefnet_weights import DATA, stand_in_image, stand_in_state_dict
from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import ALL, NONE

pytestmark = pytest.mark.usefixtures("library")

SIZE = 128

# Largest and mean difference of the logits, whose standard deviation is 1.8, with everything but the deformable
# convolutions in f32. OpenVINO's own bf16 for the whole network gives 0.13 and 0.027.
LIMIT = {"f32": (2e-4, 2e-5), "bf16": (0.06, 0.012), "i8": (0.15, 0.035)}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return checkpoint.validate(stand_in_state_dict(), "stand-in")


@pytest.mark.parametrize(("arithmetic", "rewrites"), [("f32", NONE), ("f32", ALL), ("bf16", ALL), ("i8", ALL)])
def test_the_logits_stay_near_the_published_ones(weights, arithmetic, rewrites):
    model = build(weights, InputSize.square(SIZE), rewrites)
    done = kernels.replaced(model, arithmetic)

    logits = kernels.run(kernels.compiled(model), [stand_in_image(SIZE)])

    assert (done.replaced, done.left) == (20, 0)
    distance = abs(logits - np.load(DATA / "reference_128.npz")["logits"])
    largest, mean = LIMIT[arithmetic]
    assert distance.max() <= largest
    assert distance.mean() <= mean
