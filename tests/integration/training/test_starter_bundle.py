"""The shipped bundle of `starter` is complete, small, static and described, and keeps its accuracy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from support.training import small_library
from worker.images.tensor import normalise
from worker.model.format.layout import PRECISIONS
from worker.model.inference import runtime
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.training import compose, sources

BUNDLE = Path(__file__).parents[3] / "worker" / "model" / "builtin" / "starter"
SIZE = 320
SHIPPED = ("fp16", "int8")
GIGA = 1e9


def xml(precision: str) -> Path:
    return BUNDLE / f"openvino_{precision}" / f"starter_{SIZE}x{SIZE}_{precision}.xml"


def products(model) -> int:
    """Count the multiplications of all convolutions for one picture."""
    total = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            *_, height, width = node.output(0).get_shape()
            total += height * width * int(np.prod(node.input(1).get_shape()))
    return total


@pytest.fixture(scope="module")
def masks():
    """Masks `[n, R, R]` of 24 composites by precision, computed in f32, and the true masks."""
    found = small_library(None)
    composites = [compose.composite(found, SIZE, 11, number) for number in range(24)]
    answers = {}
    for precision in SHIPPED:
        hints = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 2}
        compiled = runtime.core().compile_model(str(xml(precision)), "CPU", hints)
        logits = [compiled(normalise(one.pixels[None], IMAGENET_MEAN, IMAGENET_SCALE))[0][0, 0] for one in composites]
        answers[precision] = 1 / (1 + np.exp(-np.stack(logits)))
    return answers, np.stack([one.alpha for one in composites]) >= 128


def test_the_manifest_describes_the_shipped_files():
    manifest = json.loads((BUNDLE / "manifest.json").read_text("utf-8"))

    for name, facts in manifest["files"].items():
        content = (BUNDLE / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert {p.relative_to(BUNDLE).as_posix() for p in BUNDLE.rglob("*.*")} == {*manifest["files"], "manifest.json"}
    assert sum(facts["bytes"] for facts in manifest["files"].values()) <= 3_000_000


def test_each_shipped_variant_exists_and_no_other():
    assert [p for p in PRECISIONS if xml(p).exists()] == sorted(SHIPPED, key=PRECISIONS.index)


@pytest.mark.parametrize("precision", SHIPPED)
def test_the_network_is_static_and_small(precision):
    model = runtime.core().read_model(str(xml(precision)))

    assert list(model.input(0).get_shape()) == [1, 3, SIZE, SIZE]
    assert list(model.output(0).get_shape()) == [1, 1, SIZE, SIZE]
    assert not any(
        node.output(0).get_partial_shape().is_dynamic for node in model.get_ordered_ops() if node.get_output_size()
    )
    assert 0.5 * GIGA < products(model) <= 2 * GIGA


def test_subjects_of_composites_are_found(masks):
    """Drawn subjects on drawn, noisy backgrounds are easier than photographs, and identical on every machine."""
    answers, truth = masks
    found = answers["fp16"] >= 0.5

    overlap = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))

    assert overlap.mean() >= 0.85


def test_int8_masks_are_close_to_fp16_masks(masks):
    answers, _ = masks

    assert np.abs(answers["int8"] - answers["fp16"]).mean() <= 0.005


def test_the_card_names_every_package_and_its_licence():
    card = (BUNDLE / "MODEL_CARD.md").read_text("utf-8")

    for package in set(sources.PACKAGES) - {sources.FURNITURE, sources.PLASMA_WALLPAPERS}:  # of the exam `rendered`
        assert package.name in card and package.license in card, package.name
    for heading in ("## Training data", "## Training", "## Evaluation", "## Limitations"):
        assert f"\n{heading}\n" in card
