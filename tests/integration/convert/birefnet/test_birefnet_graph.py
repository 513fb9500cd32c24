"""What each exact rewrite adds to the graph and removes from it, checked without running the graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import openvino as ov
import pytest
from openvino.passes import ConstantFolding, Manager

from worker.contract.input_size import InputSize
from worker.convert.birefnet import layout
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import ALL, NONE, Rewrite

SIZE = 256


@pytest.fixture(scope="session")
def blank() -> dict[str, np.ndarray]:
    return {name: np.ones(shape, np.float32) for name, shape in layout.required().items()}


@dataclass(frozen=True)
class Step:
    """One operation: its kind, the shape of its first input and of its first output."""

    kind: str
    taken: tuple[int, ...]
    given: tuple[int, ...]


def steps(model: ov.Model) -> list[Step]:
    return [
        Step(node.get_type_name(), tuple(node.input(0).get_shape()), tuple(node.output(0).get_shape()))
        for node in model.get_ops()
        if node.inputs() and node.outputs()
    ]


@pytest.fixture(scope="session")
def graphs(blank) -> dict[frozenset[Rewrite], list[Step]]:
    """The operations of the plain graph and of one graph per rewrite; the models are large and not kept."""
    return {rewrites: steps(build(blank, InputSize.square(SIZE), rewrites)) for rewrites in (NONE, *map(only, Rewrite))}


def only(rewrite: Rewrite) -> frozenset[Rewrite]:
    return frozenset([rewrite])


def kinds(graph: list[Step]) -> Counter[str]:
    return Counter(step.kind for step in graph)


def full_size(graph: list[Step], kind: str) -> list[int]:
    """Return the channels of the full-size maps that operations of a kind give, fewest first."""
    return sorted(step.given[1] for step in graph if step.kind == kind and step.given[2:] == (SIZE, SIZE))


@pytest.mark.parametrize("rewrites", [NONE, ALL], ids=["plain", "default"])
def test_the_graph_is_static_with_named_ends(blank, rewrites):
    model = build(blank, InputSize.square(SIZE), rewrites)

    assert [(port.get_any_name(), list(port.shape)) for port in model.inputs] == [("image", [1, 3, SIZE, SIZE])]
    assert [(port.get_any_name(), list(port.shape)) for port in model.outputs] == [("logits", [1, 1, SIZE, SIZE])]
    assert model.input().element_type == model.output().element_type == ov.Type.f32
    assert not {"ShapeOf", "Range", "ScatterNDUpdate", "NonZero", "Convert"} & kinds(steps(model)).keys()


def test_masks_are_constants_once_compiled(blank):
    model = build(blank, InputSize.square(64), NONE)
    masks = kinds(steps(model))["Gather"]
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)

    assert masks == 8
    assert "Gather" not in kinds(steps(model))


def test_the_output_convolution_is_folded_into_both_inputs(graphs):
    assert full_size(graphs[NONE], "Interpolate") == [3, 96]
    assert full_size(graphs[only(Rewrite.OUTPUT_CONV)], "Interpolate") == [1, 3]


def test_the_image_convolutions_collapse(graphs):
    assert full_size(graphs[NONE], "Convolution") == [1, 24, 64]
    assert full_size(graphs[only(Rewrite.INPUT_PATCH)], "Convolution") == [1]


def test_offset_and_modulator_convolutions_are_merged(graphs):
    merged = graphs[only(Rewrite.OFFSETS)]
    channels = Counter(step.given[1] for step in merged if step.kind == "Convolution")

    assert channels[147] == 5
    assert channels[98] == channels[49] == 0


def test_batch_norms_are_folded(graphs):
    assert kinds(graphs[NONE])["BatchNormInference"] == 5 * 8 + 3
    assert "BatchNormInference" not in kinds(graphs[only(Rewrite.BATCH_NORM)])


def test_the_pooled_branch_is_not_broadcast_over_the_map(graphs):
    assert kinds(graphs[NONE])["Broadcast"] == 5
    assert "Broadcast" not in kinds(graphs[only(Rewrite.POOLED_BRANCH)])


def test_the_branches_are_not_concatenated(graphs):
    def joined(graph):
        return sum(step.kind == "Concat" and step.given[1] == 5 * 256 for step in graph)

    assert joined(graphs[NONE]) == 5
    assert joined(graphs[only(Rewrite.BRANCH_SUM)]) == 0


def test_resizes_to_the_same_size_are_dropped(graphs):
    def same_size(graph):
        return sum(step.kind == "Interpolate" and step.taken == step.given for step in graph)

    assert same_size(graphs[NONE]) == 5
    assert same_size(graphs[only(Rewrite.SAME_SIZE)]) == 0


@pytest.mark.parametrize(("rewrite", "gathers"), [(Rewrite.WINDOW_GATHER, 48), (Rewrite.REAL_TOKENS, 96)])
def test_windows_are_gathered(graphs, rewrite, gathers):
    found = kinds(graphs[only(rewrite)])

    assert kinds(graphs[NONE])["Roll"] == 24
    assert not {"Roll", "Pad", "Slice"} & found.keys()
    assert found["Gather"] == kinds(graphs[NONE])["Gather"] + gathers


def test_products_run_on_real_tokens_only(graphs):
    def rows(graph):
        products = (step for step in graph if step.kind == "MatMul" and step.given[-1] == 288)
        return {step.taken[0] * step.taken[1] for step in products}

    assert rows(graphs[NONE]) == {70 * 70, 35 * 35}
    assert rows(graphs[only(Rewrite.REAL_TOKENS)]) == {64 * 64, 32 * 32}
