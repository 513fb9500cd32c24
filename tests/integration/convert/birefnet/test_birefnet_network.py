"""The network compared with arrays of the published definition, and every exact rewrite with the plain graph.

All use stand-in weights in float32; reference arrays exist for sizes 128 and 256.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest

from support.birefnet_weights import DATA, stand_in_image, stand_in_state_dict
from worker.contract.errors import BundleError, SettingsError
from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import ALL, NONE, Rewrite
from worker.model.inference import runtime

AGREEMENT = 2e-4  # with the published definition; the logits have a spread of 1.7 to 2.4
REWRITTEN = 1e-4  # between two forms of one network
FRAME = 2
SIZE = 128

CHOICES = [ALL, *(frozenset([rewrite]) for rewrite in Rewrite)]


def label(rewrites: frozenset[Rewrite]) -> str:
    return "default" if rewrites == ALL else next(iter(rewrites))


@pytest.fixture(scope="session")
def weights() -> dict[str, np.ndarray]:
    return checkpoint.validate(stand_in_state_dict(), "stand-in")


def infer(model: ov.Model, size: int) -> dict[str, np.ndarray]:
    compiled = runtime.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({"image": stand_in_image(size)})
    return {output.get_any_name(): values for output, values in results.items()}


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "reference_128.npz"))


@pytest.fixture(scope="session")
def plain(weights, reference) -> dict[str, np.ndarray]:
    """Every map of the network without rewrites."""
    model = build(weights, InputSize.square(SIZE), NONE)
    model.add_outputs([name for name in reference if name != "logits"])
    return infer(model, SIZE)


def test_the_plain_network_agrees_in_every_map(plain, reference):
    distances = {name: float(abs(plain[name] - values).max()) for name, values in reference.items()}

    assert len(distances) == 10
    assert max(distances.values()) <= AGREEMENT, distances


@pytest.mark.parametrize("rewrites", CHOICES, ids=label)
def test_a_rewrite_changes_no_logit(weights, reference, plain, rewrites):
    logits = infer(build(weights, InputSize.square(SIZE), rewrites), SIZE)["logits"]
    inside = (..., slice(FRAME, -FRAME), slice(FRAME, -FRAME))
    frame = np.ones(logits.shape, bool)
    frame[inside] = False

    for want, limit in ((reference["logits"], AGREEMENT), (plain["logits"], REWRITTEN)):
        distance = abs(logits - want)
        assert distance[frame].max() <= limit
        assert distance[inside].max() <= limit


def test_the_default_network_agrees_at_256(weights):
    logits = infer(build(weights, InputSize.square(256)), 256)["logits"]

    assert abs(logits - np.load(DATA / "reference_256.npz")["logits"]).max() <= AGREEMENT


def test_odd_grids_of_tokens_work(weights):
    # The half-size pass has grids of 12, 6, 3 and 2 tokens: the third is padded before it is halved.
    size = 96
    default, plain = (
        infer(build(weights, InputSize.square(size), rewrites), size)["logits"] for rewrites in (ALL, NONE)
    )

    assert default.shape == (1, 1, size, size)
    assert abs(default - plain).max() <= REWRITTEN


@pytest.mark.parametrize("size", [(0, 64), (-32, 64), (64, 100), (512 + 16, 64)])
def test_a_size_that_is_not_a_multiple_of_32_is_refused(size):
    with pytest.raises(SettingsError, match="height and width must be multiples of 32"):
        build({}, InputSize(*size))


def test_an_unknown_rewrite_is_refused_with_the_known_ones(weights):
    with pytest.raises(SettingsError, match=r"'faster'.*output-conv"):
        build(weights, InputSize.square(32), ["faster"])


def test_missing_arrays_are_listed(weights):
    rest = {name: values for name, values in weights.items() if name != "bb.norm0.weight"}

    with pytest.raises(BundleError, match=r"1 arrays .*bb\.norm0\.weight"):
        build(rest, InputSize.square(32))
